import { afterAll, expect, it } from 'vitest'
import { type Backend, type Feeds, ReferenceBackend } from '../../src/index.js'
import { firstDifference, within } from '../conformance/compare.js'
import { Random } from '../conformance/random.js'
import { type TinyPlan, tinyLlama, tinyStep, tinyWeights } from '../conformance/tiny-llama.js'
import { cpuBackends, describeBackends } from './support.js'

// Whole programs: every op, its fusions, pages in disorder, sequences that come in pieces and side by side.

const pageSize = 4
const backends = cpuBackends({ poison: true, threads: 3 })
afterAll(() => {
  for (const { backend } of backends) backend.dispose()
})

const plans: readonly (TinyPlan & { readonly tolerance: number })[] = [
  { compute: 'f32', fp8: false, kv: { dtype: 'f32' }, tolerance: 2e-5 },
  { compute: 'f32', fp8: false, kv: { dtype: 'bf16' }, tolerance: 5e-3 },
  { compute: 'bf16', fp8: true, kv: { dtype: 'int4', symmetric: false, scale: 'bf16' }, tolerance: 0.1 },
]

/** Two prompts, the first in two pieces, then a token of each. */
const a = { ids: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], pages: [5, 0, 3] }
const b = { ids: [21, 22, 23, 24, 25, 26], pages: [1, 4] }
const steps: readonly Feeds[] = [
  tinyStep([{ tokens: a.ids.slice(0, 6), past: 0, pages: a.pages }], pageSize),
  tinyStep(
    [
      { tokens: a.ids.slice(6, 10), past: 6, pages: a.pages },
      { tokens: b.ids.slice(0, 5), past: 0, pages: b.pages },
    ],
    pageSize,
  ),
  tinyStep(
    [
      { tokens: b.ids.slice(5), past: 5, pages: b.pages },
      { tokens: a.ids.slice(10), past: 10, pages: a.pages },
    ],
    pageSize,
  ),
]

async function logitsOf(backend: Backend, plan: TinyPlan, feeds: readonly Feeds[]): Promise<Float32Array[]> {
  const program = tinyLlama(plan)
  const tensors = tinyWeights(new Random(7), program)
  using weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  using executable = await backend.compile(program, weights)
  using kv = backend.createKvCache(program.kv!, { pages: 6, pageSize })
  const results: Float32Array[] = []
  for (const step of feeds) results.push((await executable.run(step, { kv })).logits as Float32Array)
  return results
}

describeBackends(backends, 'a decoder on $name', ({ backend }) => {
  it.each(plans)('gives the reference’s logits: $compute, FP8 $fp8, $kv', async ({ tolerance, ...plan }) => {
    const [actual, expected] = await Promise.all([
      logitsOf(backend, plan, steps),
      logitsOf(new ReferenceBackend(), plan, steps),
    ])
    for (const [i, logits] of expected.entries()) {
      const largest = logits.reduce((most, v) => Math.max(most, Math.abs(v)), 0)
      expect(firstDifference(`step ${i}`, 50, actual[i]!, logits, within(0, tolerance * largest))).toBeUndefined()
    }
  })

  it('gives the same bits for a prompt in pieces, beside others, and whole', async () => {
    const plan = plans[0]!
    const whole = [a, b].map(({ ids, pages }) => tinyStep([{ tokens: ids, past: 0, pages }], pageSize))
    const [[first, second], pieces] = await Promise.all([
      logitsOf(backend, plan, whole),
      logitsOf(backend, plan, steps),
    ])
    const row = (logits: Float32Array, i: number): Float32Array => logits.subarray(i * 50, (i + 1) * 50)
    for (let i = 0; i < 6; i++) expect(row(pieces[0]!, i)).toEqual(row(first!, i))
    for (let i = 0; i < 4; i++) expect(row(pieces[1]!, i)).toEqual(row(first!, 6 + i))
    for (let i = 0; i < 5; i++) expect(row(pieces[1]!, 4 + i)).toEqual(row(second!, i))
    expect(row(pieces[2]!, 0)).toEqual(row(second!, 5))
    expect(row(pieces[2]!, 1)).toEqual(row(first!, 10))
  })

  it('gives a fused program the bits of the unfused one', async () => {
    const plan = plans[0]!
    const program = tinyLlama({ ...plan, fp8: true })
    const tensors = tinyWeights(new Random(8), program)
    using weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
    using fused = await backend.compile(program, weights)
    const unfusable = { ...program, buffers: asOutputs(program.buffers) }
    using unfused = await backend.compile(unfusable, weights)
    expect(fused.program.ops.length).toBeLessThan(unfused.program.ops.length)
    using kv = backend.createKvCache(program.kv!, { pages: 6, pageSize })
    const [x, y] = [await fused.run(steps[0]!, { kv }), await unfused.run(steps[0]!, { kv })]
    expect(x.logits).toEqual(y.logits)
  })
})

/** A buffer that the caller wants can't be fused away. */
function asOutputs<T extends { readonly role: string }>(buffers: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(
    Object.entries(buffers).map(([name, spec]) => [name, spec.role === 'scratch' ? { ...spec, role: 'output' } : spec]),
  )
}

describeBackends(backends, 'on $name, threads', ({ isa }) => {
  it('change nothing in the bits', async () => {
    const results = await Promise.all(
      [1, 2, 5].map(async (threads) => {
        using own = cpuBackends({ threads, poison: true }).find((other) => other.isa === isa)!.backend
        return await logitsOf(own, plans[2]!, steps)
      }),
    )
    expect(results[1]).toEqual(results[0])
    expect(results[2]).toEqual(results[0])
  })
})
