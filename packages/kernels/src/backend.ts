import type { Tensor } from '@fireq/formats'
import type { KvCacheSpec } from './program/kv.js'
import type { Program, WeightSpec } from './program/program.js'

export type BackendName = 'reference' | 'cpu' | 'cuda'

/** Frees what it holds on `dispose()`, which may be called twice; every later use is an error that says so. */
export interface Handle extends Disposable {
  dispose(): void
}

/**
 * Runs programs. A program is compiled once and run many times; one `run` is one whole forward pass. Weights and KV
 * caches belong to the backend that made them and outlive the executables that use them.
 */
export interface Backend extends Handle {
  readonly name: BackendName
  /** One line for people: instruction set, threads, device. */
  readonly description: string
  /**
   * Packs weights for this backend's kernels, asking `source` for one part at a time, so that memory stays near the
   * packed size.
   */
  loadWeights(
    specs: Readonly<Record<string, WeightSpec>>,
    source: WeightSource,
    options?: LoadOptions,
  ): Promise<WeightSet>
  createKvCache(spec: KvCacheSpec, options: { pages: number; pageSize: number }): KvCache
  /** Checks the program, applies this backend's rewrites, binds weights. */
  compile(program: Program, weights: WeightSet): Promise<Executable>
}

/** Yields a checkpoint's tensor by its name; the loader drops it after packing. */
export type WeightSource = (name: string) => Promise<Tensor>

export interface LoadOptions {
  readonly signal?: AbortSignal
  /** Called after each weight with bytes packed so far. */
  readonly onProgress?: (progress: { weight: string; done: number; total: number; bytes: number }) => void
}

/** Packed weights by the program's names. May serve several programs. */
export interface WeightSet extends Handle {
  readonly bytes: number
  has(name: string): boolean
}

/** Pages of keys and values. Token `slot = page · pageSize + offset`; which sequence owns a page is the caller's affair. */
export interface KvCache extends Handle {
  readonly spec: KvCacheSpec
  readonly pages: number
  readonly pageSize: number
  readonly bytes: number
}

export interface RunOptions {
  /** Required if the program has `storeKv` or `attention` ops. */
  readonly kv?: KvCache
  /** Aborting rejects with the signal's reason, within one op; the KV cache keeps what was stored. */
  readonly signal?: AbortSignal
}

/** Input buffers by name; their lengths bind the symbolic dimensions. */
export type Feeds = Readonly<Record<string, Int32Array | Float32Array>>
/** Output buffers by name, as FP32 or i32 whatever their stored type. */
export type Results = Readonly<Record<string, Float32Array | Int32Array>>

export interface Executable extends Handle {
  /** The program as it runs: after the backend's rewrites. */
  readonly program: Program
  /** Never blocks the event loop on a native backend. Runs of one executable are queued. */
  run(feeds: Feeds, options?: RunOptions): Promise<Results>
}
