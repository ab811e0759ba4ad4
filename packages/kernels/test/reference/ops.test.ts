import { quantizeInt4, roundBf16, type Tensor } from '@fireq/formats'
import { describe, expect, it } from 'vitest'
import { type Feeds, type OpKind, type Program, ProgramBuilder, ReferenceBackend } from '../../src/index.js'

// Each op against values worked out by hand or by a formula written differently here.

const backend = new ReferenceBackend()

async function run(program: Program, feeds: Feeds, tensors: Record<string, Tensor> = {}) {
  const weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  const executable = await backend.compile(program, weights)
  return executable.run(feeds)
}

const dense = (shape: number[], data: ArrayLike<number>): Tensor => ({
  kind: 'dense',
  dtype: 'f32',
  shape,
  data: Float32Array.from(data),
})

/** A program of one op whose output is `out`. */
function single(
  kind: OpKind,
  inputs: Record<string, ['f32' | 'bf16' | 'e4m3' | 'i32', number]>,
  outputs: Record<string, ['f32' | 'bf16' | 'e4m3' | 'i32', number | undefined]>,
  attrs: object = {},
  weights: Record<string, number[]> = {},
  constants: Record<string, Float32Array> = {},
): Program {
  const p = new ProgramBuilder(kind)
  const shape = (columns: number | undefined): ['tokens', number] | ['tokens'] =>
    columns ? ['tokens', columns] : ['tokens']
  for (const [name, [dtype, columns]] of Object.entries(inputs)) p.input(name, dtype, shape(columns))
  for (const [name, [dtype, columns]] of Object.entries(outputs)) p.output(name, dtype, shape(columns))
  for (const [name, size] of Object.entries(weights)) p.weight(name, size)
  for (const [name, values] of Object.entries(constants)) p.constant(name, values)
  const names = [inputs, outputs, weights, constants].flatMap((table) => Object.keys(table))
  p.op(kind, Object.fromEntries(names.map((name) => [name, name])) as never, attrs as never)
  return p.build()
}

describe('embed', () => {
  it('copies rows of the table', async () => {
    const program = single('embed', { tokens: ['i32', 0] }, { out: ['f32', 2] }, {}, { table: [3, 2] })
    const table = dense([3, 2], [1, 2, 3, 4, 5, 6])
    const { out } = await run(program, { tokens: Int32Array.of(2, 0) }, { table })
    expect([...out!]).toEqual([5, 6, 1, 2])
    await expect(run(program, { tokens: Int32Array.of(0, 3) }, { table })).rejects.toThrow(
      'token 1 has id 3, outside the vocabulary of 3',
    )
  })
})

describe('rmsNorm', () => {
  it('divides by the root mean square', async () => {
    const program = single('rmsNorm', { x: ['f32', 2] }, { out: ['f32', 2] }, { eps: 0 }, { weight: [2] })
    const { out } = await run(program, { x: Float32Array.of(3, 4) }, { weight: dense([2], [1, 2]) })
    const rms = Math.sqrt(12.5)
    expect(out![0]).toBeCloseTo(3 / rms, 6)
    expect(out![1]).toBeCloseTo(8 / rms, 6)
  })
})

describe('quantizeFp8', () => {
  const program = single('quantizeFp8', { x: ['f32', 2] }, { out: ['e4m3', 2], scale: ['f32', 1] }, { groupSize: 2 })

  it('puts the largest value of a row at 448', async () => {
    const { out, scale } = await run(program, { x: Float32Array.of(896, -3, 0, 0) })
    expect([...out!]).toEqual([448, -1.5, 0, 0])
    expect([...scale!]).toEqual([2, 1])
  })

  it('keeps a NaN, and makes a row with an infinity NaN once it is scaled back', async () => {
    const { out, scale } = await run(program, { x: Float32Array.of(Number.NaN, 448, Infinity, 1) })
    expect([...out!].slice(0, 2)).toEqual([Number.NaN, 448])
    expect(Number.isNaN(out![2]! * scale![1]!) && Number.isNaN(out![3]! * scale![1]!)).toBe(true)
  })
})

describe('linear', () => {
  it('adds scales, bias and residual in one rounding', async () => {
    const program = single(
      'linear',
      { x: ['e4m3', 2], xScale: ['f32', 1], residual: ['f32', 2] },
      { out: ['bf16', 2] },
      {},
      { weight: [2, 2], bias: [2] },
    )
    const feeds = { x: Float32Array.of(2, 4), xScale: Float32Array.of(0.5), residual: Float32Array.of(1, 1.0625) }
    const { out } = await run(program, feeds, {
      weight: dense([2, 2], [1, 1, 1, -1]),
      bias: dense([2], [0.25, 0.001]),
    })
    expect([...out!]).toEqual([3 + 0.25 + 1, roundBf16(-1 + 0.001 + 1.0625)])
  })

  it('applies an INT4 scale exactly, or rounds each product to E4M3 when the tensor says so', async () => {
    const program = single('linear', { x: ['f32', 32] }, { out: ['f32', 1] }, {}, { weight: [1, 32] })
    const values = Float32Array.from({ length: 32 }, (_, k) => (k === 0 ? 7 : 5) * 1.125)
    const x = new Float32Array(32)
    x[1] = 1
    const exact = quantizeInt4(values, [1, 32], { groupSize: 32, scale: 'e4m3', tensorScale: 0 })
    const { out } = await run(program, { x }, { weight: exact })
    expect(out![0]).toBe(5.625)
    const lookup = await run(program, { x }, { weight: { ...exact, lookupRounding: true } })
    expect(lookup.out![0]).toBe(5.5) // E4M3 counts in steps of ½ there
  })
})

describe('rope', () => {
  it('rotates the pair (i, i + headDim/2) as a complex number, and leaves values alone', async () => {
    const program = single(
      'rope',
      { qkv: ['f32', 16], positions: ['i32', 0] },
      { q: ['f32', 8], k: ['f32', 4], v: ['f32', 4] },
      { numAttentionHeads: 2, numKeyValueHeads: 1, headDim: 4 },
      {},
      { inverseFrequencies: Float32Array.of(1, 0.25) },
    )
    const qkv = Float32Array.from({ length: 16 }, (_, i) => i + 1)
    const { q, k, v } = await run(program, { qkv, positions: Int32Array.of(3) })
    const rotate = (re: number, im: number, angle: number): [number, number] => {
      const [r, phase] = [Math.hypot(re, im), Math.atan2(im, re) + angle]
      return [r * Math.cos(phase), r * Math.sin(phase)]
    }
    const head = (first: number): number[] => {
      const [a, c] = rotate(first, first + 2, 3)
      const [b, d] = rotate(first + 1, first + 3, 0.75)
      return [a, b, c, d]
    }
    for (const [actual, expected] of [
      [q!, [...head(1), ...head(5)]],
      [k!, head(9)],
    ] as const) {
      for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 4)
    }
    expect([...v!]).toEqual([13, 14, 15, 16])
  })
})

describe('scaleKeys', () => {
  it('leaves every score as it was', async () => {
    const program = single(
      'scaleKeys',
      { q: ['f32', 8], k: ['f32', 4] },
      { qOut: ['f32', 8], kOut: ['f32', 4] },
      { headDim: 2 },
      {},
      { keyScale: Float32Array.of(2, 0.5, 4, 1) },
    )
    const [q, k] = [Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8), Float32Array.of(1, -1, 2, 3)]
    const { qOut, kOut } = await run(program, { q, k })
    expect([...kOut!]).toEqual([2, -0.5, 8, 3])
    const score = (a: ArrayLike<number>, b: ArrayLike<number>, h: number): number =>
      a[2 * h]! * b[h < 2 ? 0 : 2]! + a[2 * h + 1]! * b[h < 2 ? 1 : 3]!
    for (let h = 0; h < 4; h++) expect(score(qOut!, kOut!, h)).toBe(score(q, k, h))
  })
})

describe('siluMul and add', () => {
  it('are what their names say', async () => {
    const silu = single('siluMul', { gateUp: ['f32', 2] }, { out: ['f32', 1] })
    expect((await run(silu, { gateUp: Float32Array.of(0, 5, 2, 3) })).out![1]).toBeCloseTo(
      (3 * 2) / (1 + Math.E ** -2),
      6,
    )
    const add = single('add', { a: ['f32', 1], b: ['f32', 1] }, { out: ['bf16', 1] })
    expect((await run(add, { a: Float32Array.of(256), b: Float32Array.of(1) })).out![0]).toBe(256) // a tie, to even
  })
})

describe('sample', () => {
  const program = (() => {
    const p = new ProgramBuilder('sample')
    p.input('logits', 'f32', ['outputs', 4])
    for (const name of ['temperature', 'topP', 'uniform']) p.input(name, 'f32', ['outputs'])
    p.input('topK', 'i32', ['outputs'])
    p.output('token', 'i32', ['outputs'])
    const feeds = { temperature: 'temperature', topK: 'topK', topP: 'topP', uniform: 'uniform' }
    p.op('sample', { logits: 'logits', ...feeds, token: 'token' }, {})
    return p.build()
  })()
  const draw = async (temperature: number, topK: number, topP: number, uniform: number): Promise<number> => {
    const logits = Float32Array.from([0.1, 0.4, 0.4, 0.1], Math.log)
    const one = (v: number): Float32Array => Float32Array.of(v)
    const feeds = {
      logits,
      temperature: one(temperature),
      topP: one(topP),
      uniform: one(uniform),
      topK: Int32Array.of(topK),
    }
    return (await run(program, feeds)).token![0]!
  }

  it('takes the first of the largest at temperature 0', async () => {
    expect(await draw(0, 0, 1, 0.9)).toBe(1)
  })

  it('walks the distribution in order of probability', async () => {
    expect(await Promise.all([0, 0.39, 0.41, 0.79, 0.81, 0.89, 0.91, 0.999].map((u) => draw(1, 0, 1, u)))).toEqual([
      1, 1, 2, 2, 0, 0, 3, 3,
    ])
  })

  it('keeps topK tokens, and the shortest prefix that reaches topP', async () => {
    expect(await draw(1, 1, 1, 0.999)).toBe(1)
    expect(await draw(1, 0, 0.5, 0.999)).toBe(2)
    expect(await draw(1, 0, 0.3, 0.999)).toBe(1)
  })

  it('refuses parameters outside their range', async () => {
    await expect(draw(-1, 0, 1, 0)).rejects.toThrow('expected temperature of row 0 to be finite and ≥ 0')
    await expect(draw(1, 0, 0, 0)).rejects.toThrow('expected topP of row 0 to be in (0, 1]')
    await expect(draw(1, 0, 1, 1)).rejects.toThrow('expected uniform of row 0 to be in [0, 1)')
    await expect(draw(Number.NaN, 0, 1, 0)).rejects.toThrow('temperature')
  })
})
