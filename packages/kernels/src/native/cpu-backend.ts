import type { Backend, Executable, KvCache, LoadOptions, WeightSet, WeightSource } from '../backend.js'
import { type InstructionSet, MAX_THREADS, readEnvironment } from '../env.js'
import { BackendError } from '../errors.js'
import { checkProgram } from '../program/check.js'
import type { KvCacheSpec } from '../program/kv.js'
import type { Program, WeightSpec } from '../program/program.js'
import { applyRewrites, fuseNormQuantize, fuseResidual, fuseSiluMulQuantize } from '../program/rewrites.js'
import type { BackendHandle, NativeAddon } from './addon-types.js'
import { NativeExecutable } from './executable.js'
import { NativeKvCache } from './kv-cache.js'
import { requireAddon } from './load.js'
import { lowerProgram } from './lower.js'
import { loadNativeWeights, NativeWeights } from './weights.js'

export interface CpuOptions {
  /** Default: FIREQ_THREADS, else every processor the process may use. */
  readonly threads?: number
  /** Default: FIREQ_ISA, else the fastest this processor has. */
  readonly isa?: InstructionSet
  /** Fills memory with NaN before each run, so that a read of something unwritten shows: for tests. */
  readonly poison?: boolean
}

/** What this machine can do at most, measured. */
export interface MachinePeak {
  /** Bytes per second that all threads together read from memory. */
  readonly readBandwidth: number
  /** FP32 operations per second of all threads together; a multiply-add is two. */
  readonly multiplyAdd: number
}

/** Runs programs in C++ on its own threads, off the event loop. Throws a BackendError if the addon can't be loaded. */
export class CpuBackend implements Backend {
  readonly name = 'cpu'
  readonly description: string
  readonly #addon: NativeAddon
  #handle: BackendHandle | undefined

  constructor(options: CpuOptions = {}) {
    this.#addon = requireAddon()
    const environment = readEnvironment()
    const threads = options.threads ?? environment.threads
    if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
      throw new BackendError(`Expected 1 to ${MAX_THREADS} threads but received ${threads}`)
    }
    const isa = options.isa ?? environment.isa ?? fastest(this.#addon)
    this.#handle = guarded(() => this.#addon.createBackend({ threads, isa, poison: options.poison ?? false }))
    this.description = `C++, ${isa}, ${threads} thread${threads === 1 ? '' : 's'}`
  }

  loadWeights(
    specs: Readonly<Record<string, WeightSpec>>,
    source: WeightSource,
    options: LoadOptions = {},
  ): Promise<WeightSet> {
    return loadNativeWeights(this.#addon, this.#live(), specs, source, options)
  }

  createKvCache(spec: KvCacheSpec, options: { pages: number; pageSize: number }): KvCache {
    this.#live()
    return guarded(() => new NativeKvCache(this.#addon, spec, options))
  }

  async compile(program: Program, weights: WeightSet): Promise<Executable> {
    checkProgram(program)
    if (!(weights instanceof NativeWeights)) {
      throw new BackendError(`Program '${program.name}': these weights were loaded by another backend`)
    }
    const rewritten = applyRewrites(program, [fuseNormQuantize, fuseSiluMulQuantize, fuseResidual])
    const handles = Object.keys(rewritten.weights).map((name) => weights.get(name))
    const handle = guarded(() => this.#addon.compile(this.#live(), lowerProgram(rewritten), handles))
    return new NativeExecutable(this.#addon, rewritten, handle)
  }

  async measurePeak(): Promise<MachinePeak> {
    const result = new Float64Array(2)
    await this.#addon.measure(this.#live(), result)
    return { readBandwidth: result[0]!, multiplyAdd: result[1]! }
  }

  dispose(): void {
    if (this.#handle !== undefined) this.#addon.release(this.#handle)
    this.#handle = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #live(): BackendHandle {
    if (this.#handle === undefined) throw new BackendError('The cpu backend was disposed')
    return this.#handle
  }
}

function fastest(addon: NativeAddon): string {
  return addon.instructionSets().find(({ usable }) => usable)?.name ?? 'plain'
}

/** Native errors as this package's own. */
function guarded<T>(action: () => T): T {
  try {
    return action()
  } catch (error) {
    if (error instanceof BackendError) throw error
    throw new BackendError(error instanceof Error ? error.message : String(error), { cause: error })
  }
}
