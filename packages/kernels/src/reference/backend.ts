import { roundBf16Array } from '@fireq/formats'
import type {
  Backend,
  Executable,
  Feeds,
  KvCache,
  LoadOptions,
  Results,
  RunOptions,
  WeightSet,
  WeightSource,
} from '../backend.js'
import { BackendError } from '../errors.js'
import type { Op } from '../ops/index.js'
import type { BufferSpec } from '../program/buffer.js'
import { checkProgram, definitionOf } from '../program/check.js'
import { type Bindings, bindFeeds, elementCount, resolveShape } from '../program/feeds.js'
import type { KvCacheSpec } from '../program/kv.js'
import type { RunContext } from '../program/op.js'
import type { Program, WeightSpec } from '../program/program.js'
import { KvCacheStorage } from './kv-cache.js'
import { loadReferenceWeights, ReferenceWeights } from './weights.js'

/** Interprets programs in plain TypeScript, op by op: the definition of the numerics, and slow. */
export class ReferenceBackend implements Backend {
  readonly name = 'reference'
  readonly description = 'plain TypeScript, one thread: defines the numerics, slow'

  loadWeights(
    specs: Readonly<Record<string, WeightSpec>>,
    source: WeightSource,
    options?: LoadOptions,
  ): Promise<WeightSet> {
    return loadReferenceWeights(specs, source, options)
  }

  createKvCache(spec: KvCacheSpec, options: { pages: number; pageSize: number }): KvCache {
    return new KvCacheStorage(spec, options)
  }

  async compile(program: Program, weights: WeightSet): Promise<Executable> {
    checkProgram(program)
    if (!(weights instanceof ReferenceWeights)) {
      throw new BackendError(`Program '${program.name}': these weights were loaded by another backend`)
    }
    for (const name of Object.keys(program.weights)) weights.get(name)
    return new ReferenceExecutable(program, weights)
  }

  dispose(): void {}

  [Symbol.dispose](): void {}
}

type Buffers = Map<string, Float32Array | Int32Array>

class ReferenceExecutable implements Executable {
  readonly program: Program
  readonly #weights: ReferenceWeights
  #disposed = false
  #queue: Promise<unknown> = Promise.resolve()

  constructor(program: Program, weights: ReferenceWeights) {
    this.program = program
    this.#weights = weights
  }

  run(feeds: Feeds, options: RunOptions = {}): Promise<Results> {
    const result = this.#queue.then(() => this.#run(feeds, options))
    this.#queue = result.catch(() => undefined)
    return result
  }

  async #run(feeds: Feeds, { kv, signal }: RunOptions): Promise<Results> {
    if (this.#disposed) throw new BackendError(`Program '${this.program.name}' is run after it was disposed`)
    signal?.throwIfAborted()
    if (kv !== undefined && !(kv instanceof KvCacheStorage)) {
      throw new BackendError(`Program '${this.program.name}': this KV cache was made by another backend`)
    }
    const bindings = bindFeeds(this.program, feeds, kv)
    const buffers: Buffers = new Map(Object.entries(feeds))
    for (const op of this.program.ops) {
      await yieldToEventLoop() // so that an abort can be heard
      signal?.throwIfAborted()
      runOp(this.program, op, buffers, bindings, { weights: this.#weights, kv, signal })
    }
    const outputs = Object.entries(this.program.buffers).filter(([, { role }]) => role === 'output')
    return Object.fromEntries(outputs.map(([name]) => [name, buffers.get(name)!]))
  }

  dispose(): void {
    this.#disposed = true
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

const yieldToEventLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

interface Bound {
  readonly weights: ReferenceWeights
  readonly kv: KvCacheStorage | undefined
  readonly signal: AbortSignal | undefined
}

function runOp(program: Program, op: Op, buffers: Buffers, bindings: Bindings, bound: Bound): void {
  const names = op.operands as Readonly<Record<string, string>>
  const definition = definitionOf(op)
  const shapeOf = (name: string): number[] => resolveShape(program.buffers[name]!.shape, bindings)
  const outputs = Object.entries(definition.roles).filter(([role, use]) => use.startsWith('output') && names[role])
  for (const [role] of outputs) {
    const [name, spec] = [names[role]!, program.buffers[names[role]!]!]
    const count = elementCount(shapeOf(name))
    buffers.set(name, spec.dtype === 'i32' ? new Int32Array(count) : new Float32Array(count))
  }
  const context: RunContext = {
    has: (role) => names[role] !== undefined,
    f32: (role) => buffers.get(names[role]!) as Float32Array,
    i32: (role) => buffers.get(names[role]!) as Int32Array,
    shape: (role) => shapeOf(names[role]!),
    weight: (role) => bound.weights.get(names[role]!),
    constant: (role) => program.constants[names[role]!]!,
    kv: () => bound.kv!,
    checkAborted: () => bound.signal?.throwIfAborted(),
  }
  definition.run(context, op.attrs as never)
  for (const [role] of outputs) roundToType(program.buffers[names[role]!]!, buffers.get(names[role]!)!)
}

/** E4M3 outputs are rounded by the op that makes them, which knows their scale. */
function roundToType(spec: BufferSpec, values: Float32Array | Int32Array): void {
  if (spec.dtype === 'bf16') roundBf16Array(values as Float32Array)
}
