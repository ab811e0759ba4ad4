import { type Backend, ReferenceBackend, type Results } from '../../src/index.js'
import { resolveShape } from '../../src/program/feeds.js'
import { firstDifference } from './compare.js'
import type { OpCase } from './op-case.js'

async function runCase(backend: Backend, { program, tensors, feeds, kv }: OpCase): Promise<Results> {
  using weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  using executable = await backend.compile(program, weights)
  using cache = program.kv && kv ? backend.createKvCache(program.kv, kv) : undefined
  return await executable.run(feeds, cache ? { kv: cache } : {})
}

const reference = new ReferenceBackend()
const known = new WeakMap<OpCase, Promise<Results>>()

/** What the reference says; worked out once a case. */
function expectedOf(opCase: OpCase): Promise<Results> {
  const cached = known.get(opCase) ?? runCase(reference, opCase)
  known.set(opCase, cached)
  return cached
}

/** Runs a case on a backend; returns a sentence for each output that differs from the reference's. */
export async function differences(backend: Backend, opCase: OpCase): Promise<string[]> {
  const [actual, expected] = await Promise.all([runCase(backend, opCase), expectedOf(opCase)])
  return Object.entries(opCase.tolerances).flatMap(([name, tolerance]) => {
    const columns = resolveShape(opCase.program.buffers[name]!.shape, {})[1] ?? 1
    return firstDifference(name, columns, actual[name]!, expected[name]!, tolerance) ?? []
  })
}
