import type { CudaAddon } from '../cuda/addon-types.js'

/**
 * The surface of the native addon (kernels/binding/addon.cc); CUDA's part has a file of its own. Functions throw plain Errors; handles are opaque
 * objects that `release` empties.
 */
export interface NativeAddon extends CudaAddon {
  /** The fastest usable one first. */
  instructionSets(): NativeInstructionSet[]
  opKinds(isa: string): string[]
  /** `poison` fills scratch memory and outputs with NaN before each run: for tests. */
  createBackend(options: { threads: number; isa: string; poison: boolean }): BackendHandle
  createMatrix(spec: NativeMatrixSpec): WeightHandle
  createVector(format: NativeFloatFormat, values: Float32Array | Uint16Array): WeightHandle
  /** Rows `firstRow`, a multiple of 16, and on; a multiple of 16 of them unless they are the last. Copies its input. */
  packRows(
    backend: BackendHandle,
    weight: WeightHandle,
    firstRow: number,
    values: Float32Array | Uint16Array,
  ): Promise<void>
  packRows(
    backend: BackendHandle,
    weight: WeightHandle,
    firstRow: number,
    codes: Uint8Array,
    scales: Float32Array | Uint16Array | Uint8Array,
    scaleType: 'f32' | 'bf16' | 'e4m3',
    groupSize: number,
  ): Promise<void>
  createKvCache(spec: NativeKvSpec): KvHandle
  bytesOf(handle: WeightHandle | KvHandle): number
  compile(backend: BackendHandle, program: NativeProgram, weights: readonly WeightHandle[]): ExecutableHandle
  /**
   * Queues a run: sizes of [tokens, sequences, outputs, pages], an array per input and per output in the order of the
   * program's buffers. Inputs are copied before it returns, outputs must be left alone until `done` settles. `done`
   * rejects with an Error of code FIREQ_ABORTED after `abort`.
   */
  run(
    executable: ExecutableHandle,
    sizes: readonly number[],
    inputs: readonly NativeArray[],
    outputs: readonly NativeArray[],
    kv: KvHandle | null,
  ): { done: Promise<void>; abort(): void }
  release(handle: BackendHandle | WeightHandle | KvHandle | ExecutableHandle): void
  /** Fills in [bytes per second that all threads read, FP32 operations per second that they do]. */
  measure(backend: BackendHandle, result: Float64Array): Promise<void>
}

declare const kind: unique symbol
export type BackendHandle = { readonly [kind]: 'backend' }
export type WeightHandle = { readonly [kind]: 'weight' }
export type KvHandle = { readonly [kind]: 'kv' }
export type ExecutableHandle = { readonly [kind]: 'executable' }

export type NativeArray = Float32Array | Int32Array
export type NativeFloatFormat = 'f32' | 'bf16' | 'f16'

export interface NativeInstructionSet {
  readonly name: string
  readonly usable: boolean
  /** Why it isn't usable. */
  readonly reason: string
}

export interface NativeMatrixSpec {
  readonly format: NativeFloatFormat | 'int4' | 'int4-lookup'
  readonly rows: number
  readonly columns: number
  /** Of INT4; the columns of a dense matrix. */
  readonly groupSize: number
  readonly channelScale?: Float32Array
}

export interface NativeKvSpec {
  readonly layers: number
  readonly heads: number
  readonly headDim: number
  readonly pages: number
  readonly pageSize: number
  readonly type: 'f32' | 'bf16' | 'int4'
  /** These two of INT4. */
  readonly symmetric?: boolean
  readonly scale?: 'bf16' | 'e4m3'
}

/** A `Program` with names resolved to indices. */
export interface NativeProgram {
  readonly name: string
  readonly buffers: readonly {
    readonly name: string
    readonly dtype: string
    readonly role: string
    /** A size, or −1 − s for symbol s of [tokens, sequences, outputs, pages]. */
    readonly shape: readonly number[]
  }[]
  readonly constants: readonly Float32Array[]
  readonly ops: readonly {
    readonly kind: string
    readonly operands: readonly {
      readonly role: string
      readonly kind: 'buffer' | 'weight' | 'constant'
      readonly index: number
    }[]
    readonly attributes: Readonly<Record<string, number | string | boolean>>
  }[]
}
