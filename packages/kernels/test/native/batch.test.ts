import { afterAll, expect, it } from 'vitest'
import type { Backend } from '../../src/index.js'
import { singleOp } from '../conformance/op-case.js'
import { dense, int4, Random, values } from '../conformance/random.js'
import { cpuBackends, describeBackends } from './support.js'

// A token's result doesn't depend on the tokens beside it. One exception, stated in kernels/cpu/ops/linear.cc: FP8 tokens
// on INT4 weights take an exact integer path up to three at a time.

const backends = cpuBackends({ poison: true })
afterAll(() => {
  for (const { backend } of backends) backend.dispose()
})
const random = new Random(11)
const columns = 200
const rows = 37
const weights = {
  int4: int4(random, [rows, columns], 40),
  lookup: int4(random, [rows, columns], 200, { lookupRounding: true }),
  bf16: dense(random, [rows, columns], 'bf16'),
  f16: dense(random, [rows, columns], 'f16'),
  f32: dense(random, [rows, columns], 'f32'),
}

async function outputs(backend: Backend, weight: keyof typeof weights, dtype: 'f32' | 'e4m3', x: Float32Array) {
  const tokens = x.length / columns
  const fp8 = dtype === 'e4m3'
  const { program, tensors } = singleOp('linear', {
    inputs: { x: [dtype, 'tokens', columns], ...(fp8 && { xScale: ['f32', 'tokens', 1] as const }) },
    outputs: { out: ['f32', 'tokens', rows] },
    weights: { weight: weights[weight] },
  })
  using set = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  using executable = await backend.compile(program, set)
  const { out } = await executable.run({ x, ...(fp8 && { xScale: new Float32Array(tokens).fill(0.25) }) })
  return Array.from({ length: tokens }, (_, t) => out!.slice(t * rows, (t + 1) * rows))
}

describeBackends(backends, 'linear on $name', ({ backend }) => {
  const x = { f32: values(random, 20 * columns), e4m3: values(random, 20 * columns, 'e4m3', 'outliers') }
  const kinds = Object.keys(weights) as (keyof typeof weights)[]
  const cases = kinds.flatMap((weight) => (['f32', 'e4m3'] as const).map((dtype) => ({ weight, dtype })))

  it.each(cases)('$dtype tokens on $weight: alone or in company', async ({ weight, dtype }) => {
    const take = (count: number): Promise<Float32Array[]> =>
      outputs(backend, weight, dtype, x[dtype].slice(0, count * columns)) as Promise<Float32Array[]>
    const all = await Promise.all([1, 2, 3, 4, 5, 6, 7, 13, 20].map(take))
    const integers = weight === 'int4' && dtype === 'e4m3'
    const [few, many] = [all.filter((batch) => batch.length <= 3), all.filter((batch) => batch.length > 3)]
    for (const group of integers ? [few, many] : [all]) {
      for (const batch of group) for (const [t, row] of batch.entries()) expect(row).toEqual(group.at(-1)![t])
    }
  })
})
