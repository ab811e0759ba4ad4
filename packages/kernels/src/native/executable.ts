import type { Executable, Feeds, Results, RunOptions } from '../backend.js'
import { BackendError } from '../errors.js'
import { type Bindings, bindFeeds, elementCount, resolveShape } from '../program/feeds.js'
import type { Program } from '../program/program.js'
import type { ExecutableHandle, NativeAddon } from './addon-types.js'
import { NativeKvCache } from './kv-cache.js'
import { symbols } from './lower.js'

/** A compiled program; native code queues its runs. */
export class NativeExecutable implements Executable {
  readonly program: Program
  readonly #addon: NativeAddon
  #handle: ExecutableHandle | undefined

  constructor(addon: NativeAddon, program: Program, handle: ExecutableHandle) {
    this.program = program
    this.#addon = addon
    this.#handle = handle
  }

  async run(feeds: Feeds, { kv, signal }: RunOptions = {}): Promise<Results> {
    const { program } = this
    if (this.#handle === undefined) throw new BackendError(`Program '${program.name}' is run after it was disposed`)
    signal?.throwIfAborted()
    if (kv !== undefined && !(kv instanceof NativeKvCache)) {
      throw new BackendError(`Program '${program.name}': this KV cache was made by another backend`)
    }
    const bindings = bindFeeds(program, feeds, kv)
    const buffers = Object.entries(program.buffers)
    const inputs = buffers.filter(([, { role }]) => role === 'input').map(([name]) => feeds[name]!)
    const results = makeOutputs(program, bindings)
    const sizes = symbols.map((symbol) => bindings[symbol] ?? 0)
    const kvHandle = program.kv === undefined ? null : (kv?.handle ?? null)
    let abort: (() => void) | undefined
    try {
      const run = this.#addon.run(this.#handle, sizes, inputs, Object.values(results), kvHandle)
      abort = run.abort
      signal?.addEventListener('abort', abort, { once: true })
      await run.done
      signal?.throwIfAborted() // it may have finished just before it heard
      return results
    } catch (error) {
      signal?.throwIfAborted()
      const message = error instanceof Error ? error.message : String(error)
      throw new BackendError(`Program '${program.name}', ${message}`, { cause: error })
    } finally {
      if (abort !== undefined) signal?.removeEventListener('abort', abort)
    }
  }

  dispose(): void {
    if (this.#handle !== undefined) this.#addon.release(this.#handle)
    this.#handle = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function makeOutputs(program: Program, bindings: Bindings): Record<string, Float32Array | Int32Array> {
  const outputs: Record<string, Float32Array | Int32Array> = {}
  for (const [name, { role, dtype, shape }] of Object.entries(program.buffers)) {
    if (role !== 'output') continue
    const count = elementCount(resolveShape(shape, bindings))
    outputs[name] = dtype === 'i32' ? new Int32Array(count) : new Float32Array(count)
  }
  return outputs
}
