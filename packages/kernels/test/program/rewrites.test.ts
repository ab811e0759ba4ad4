import type { Tensor } from '@fireq/formats'
import { describe, expect, it } from 'vitest'
import {
  applyRewrites,
  fuseNormQuantize,
  fuseResidual,
  fuseSiluMulQuantize,
  type Program,
  ProgramBuilder,
  ReferenceBackend,
  type Rewrite,
} from '../../src/index.js'

const [hidden, inner] = [16, 24]

/** An MLP block with FP8 inputs: norm, quantize, gate and up, silu·mul, quantize, down, residual. */
function mlp(compute: 'f32' | 'bf16'): Program {
  const p = new ProgramBuilder('mlp')
  p.input('x', compute, ['tokens', hidden])
  p.output('y', compute, ['tokens', hidden])
  p.scratch('normed', compute, ['tokens', hidden])
  p.scratch('normed8', 'e4m3', ['tokens', hidden])
  p.scratch('normedScale', 'f32', ['tokens', 1])
  p.scratch('gateUp', compute, ['tokens', 2 * inner])
  p.scratch('product', compute, ['tokens', inner])
  p.scratch('product8', 'e4m3', ['tokens', inner])
  p.scratch('productScale', 'f32', ['tokens', 1])
  p.scratch('down', compute, ['tokens', hidden])
  p.weight('norm', [hidden])
  p.weight('gateUpWeight', [2 * inner, hidden])
  p.weight('downWeight', [hidden, inner])
  p.op('rmsNorm', { x: 'x', weight: 'norm', out: 'normed' }, { eps: 1e-5 })
  p.op('quantizeFp8', { x: 'normed', out: 'normed8', scale: 'normedScale' }, { groupSize: hidden })
  p.op('linear', { x: 'normed8', xScale: 'normedScale', weight: 'gateUpWeight', out: 'gateUp' }, {})
  p.op('siluMul', { gateUp: 'gateUp', out: 'product' }, {})
  p.op('quantizeFp8', { x: 'product', out: 'product8', scale: 'productScale' }, { groupSize: inner })
  p.op('linear', { x: 'product8', xScale: 'productScale', weight: 'downWeight', out: 'down' }, {})
  p.op('add', { a: 'x', b: 'down', out: 'y' }, {})
  return p.build()
}

const noise = (length: number, seed: number): Float32Array =>
  Float32Array.from({ length }, (_, i) => Math.sin(seed + i * 12.9898) * 2)

async function output(program: Program): Promise<Float32Array> {
  const backend = new ReferenceBackend()
  const tensor = async (name: string): Promise<Tensor> => {
    const { shape } = program.weights[name]!
    const data = noise(
      shape.reduce((a, b) => a * b),
      name.length,
    )
    return { kind: 'dense', dtype: 'f32', shape, data }
  }
  const executable = await backend.compile(program, await backend.loadWeights(program.weights, tensor))
  const { y } = await executable.run({ x: noise(3 * hidden, 5) })
  return y as Float32Array
}

const kinds = (program: Program): string[] => program.ops.map(({ kind }) => kind)

describe.each(['f32', 'bf16'] as const)('rewrites, activations in %s', (compute) => {
  it.each<[string, Rewrite, string, number]>([
    ['fuseNormQuantize', fuseNormQuantize, 'rmsNormQuantize', 6],
    ['fuseSiluMulQuantize', fuseSiluMulQuantize, 'siluMulQuantize', 6],
  ])('%s gives the same bits', async (_, rewrite, kind, length) => {
    const fused = applyRewrites(mlp(compute), [rewrite])
    expect(kinds(fused)).toContain(kind)
    expect(fused.ops).toHaveLength(length)
    expect(await output(fused)).toEqual(await output(mlp(compute)))
  })

  it('fuseResidual is equal in FP32 and within one rounding in BF16', async () => {
    const fused = applyRewrites(mlp(compute), [fuseResidual])
    expect(kinds(fused)).not.toContain('add')
    const [actual, expected] = [await output(fused), await output(mlp(compute))]
    const ulp = compute === 'f32' ? 2 ** -22 : 2 ** -7
    actual.forEach((v, i) => {
      const product = Math.abs(expected[i]!) + 2 // |residual| ≤ 2, so the product may be that much larger than the sum
      expect(Math.abs(v - expected[i]!)).toBeLessThanOrEqual(product * ulp)
    })
  })

  it('all together drop the buffers between', async () => {
    const fused = applyRewrites(mlp(compute), [fuseNormQuantize, fuseSiluMulQuantize, fuseResidual])
    expect(kinds(fused)).toEqual(['rmsNormQuantize', 'linear', 'siluMulQuantize', 'linear'])
    expect(Object.keys(fused.buffers)).not.toContain('normed')
  })
})

describe('a rewrite', () => {
  it('leaves a buffer alone that something else reads', () => {
    const program = mlp('f32')
    const tapped = {
      ...program,
      buffers: { ...program.buffers, seen: { dtype: 'f32', shape: ['tokens', hidden], role: 'output' } as const },
      ops: [...program.ops, { kind: 'tap', operands: { x: 'normed', out: 'seen' }, attrs: {} } as const],
    }
    expect(kinds(applyRewrites(tapped, [fuseNormQuantize]))).toEqual(kinds(tapped))
  })
})
