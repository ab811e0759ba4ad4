import type { Op, OpOf } from '../ops/index.js'
import { checkProgram, operandsOf } from './check.js'
import type { Program } from './program.js'

/** Turns a program into an equal one with fewer ops. A backend applies those it has kernels for. */
export type Rewrite = (program: Program) => Program

/** Applies rewrites in order, drops buffers that no op uses any more, and checks the result. */
export function applyRewrites(program: Program, rewrites: readonly Rewrite[]): Program {
  if (rewrites.length === 0) return program
  const rewritten = rewrites.reduce((current, rewrite) => rewrite(current), program)
  const used = new Set(rewritten.ops.flatMap((op) => operandsOf(op).map(({ name }) => name)))
  const buffers = Object.fromEntries(
    Object.entries(rewritten.buffers).filter(([name, spec]) => spec.role !== 'scratch' || used.has(name)),
  )
  const result = { ...rewritten, buffers }
  checkProgram(result)
  return result
}

/** rmsNorm → quantizeFp8 (one scale per token) becomes one op. */
export const fuseNormQuantize: Rewrite = (program) =>
  fusePairs(program, 'rmsNorm', 'quantizeFp8', (norm, quantize, intermediate) => ({
    kind: 'rmsNormQuantize',
    operands: {
      x: norm.operands.x,
      weight: norm.operands.weight,
      out: quantize.operands.out,
      scale: quantize.operands.scale,
    },
    attrs: { eps: norm.attrs.eps, intermediate },
  }))

/** siluMul → quantizeFp8 (one scale per token) becomes one op. */
export const fuseSiluMulQuantize: Rewrite = (program) =>
  fusePairs(program, 'siluMul', 'quantizeFp8', (silu, quantize, intermediate) => ({
    kind: 'siluMulQuantize',
    operands: { gateUp: silu.operands.gateUp, out: quantize.operands.out, scale: quantize.operands.scale },
    attrs: { intermediate },
  }))

/** linear → add becomes a linear with a residual: one rounding fewer, so equal in FP32 and closer in BF16. */
export const fuseResidual: Rewrite = (program) =>
  fusePairs(program, 'linear', 'add', (linear, add) => {
    if (linear.operands.residual !== undefined) return undefined
    const product = linear.operands.out
    const residual = add.operands.a === product ? add.operands.b : add.operands.a
    return { kind: 'linear', operands: { ...linear.operands, residual, out: add.operands.out }, attrs: {} }
  })

/**
 * Replaces a first op whose one output is a scratch buffer read once, by the second op, with `fuse`'s op in the second's
 * place. `fuse` returns undefined to leave the pair alone.
 */
function fusePairs<A extends Op['kind'], B extends Op['kind']>(
  program: Program,
  first: A,
  second: B,
  fuse: (a: OpOf<A>, b: OpOf<B>, intermediate: 'f32' | 'bf16') => Op | undefined,
): Program {
  const result: (Op | undefined)[] = [...program.ops]
  program.ops.forEach((a, i) => {
    if (a.kind !== first) return
    const out = operandsOf(a).find(({ use }) => use === 'output')!.name
    const spec = program.buffers[out]!
    const readers = program.ops.filter((op) => operandsOf(op).some(({ name, use }) => use === 'input' && name === out))
    const b = readers[0]
    if (spec.role !== 'scratch' || readers.length !== 1 || b?.kind !== second) return
    if (b.kind === 'quantizeFp8' && b.attrs.groupSize !== spec.shape[1]) return
    const fused = fuse(a as OpOf<A>, b as OpOf<B>, spec.dtype as 'f32' | 'bf16')
    if (fused === undefined) return
    result[i] = undefined
    result[program.ops.indexOf(b)] = fused
  })
  return { ...program, ops: result.filter((op) => op !== undefined) }
}
