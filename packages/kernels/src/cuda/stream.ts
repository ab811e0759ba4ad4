import { setImmediate } from 'node:timers/promises'
import { BackendError } from '../errors.js'
import type {
  CudaAddon,
  LaunchShape,
  NativeArgument,
  NativeInt4Format,
  NativeInt4Slab,
  NativePart,
  NativeTensorMap,
  StreamHandle,
} from './addon-types.js'
import { asBackendError, CudaResource, guarded } from './handle.js'
import { CudaBuffer, CudaEvent, CudaGraph, type CudaKernel } from './resources.js'

/** What a kernel is given: a buffer's address (null: none), a number of a stated type, a tensor map, a struct of those. */
export type Argument =
  | CudaBuffer
  | null
  | { readonly type: 'i32' | 'u32' | 'f32'; readonly value: number }
  | TensorMap
  | Struct

/** A tensor in a buffer as the copy engine takes boxes of it. */
export interface TensorMap extends Omit<NativeTensorMap, 'tensor'> {
  readonly tensor: CudaBuffer
}

/** A struct by value: its fields one behind the other; tensor maps come first. */
export interface Struct {
  readonly fields: readonly Exclude<Argument, Struct>[]
}

/** See kernels/cuda/kept_sum.cuh. */
export interface KeptSums {
  /** KEPT_BYTES a multiprocessor. */
  readonly sums: CudaBuffer
  /** Zero between kernels. */
  readonly ready: CudaBuffer
}

/** The most that a block of any kernel keeps, and its flags. */
export const KEPT_BYTES = 69632
const KEPT_FLAGS = 2

/**
 * A queue of work on a device, done in order. Methods return once the work is enqueued, except those that return promises.
 * `what` names the op and its shapes in errors.
 */
export class CudaStream extends CudaResource<StreamHandle> {
  readonly #multiprocessors: number
  #keptSums: KeptSums | undefined

  constructor(addon: CudaAddon, handle: StreamHandle, multiprocessors: number) {
    super(addon, 'stream', handle)
    this.#multiprocessors = multiprocessors
  }

  /**
   * Where blocks of a kernel keep parts of a sum for each other: memory that this stream's kernels use one after the other.
   * Made by the first use; not in a capture, which makes it before it begins.
   */
  keptSums(): KeptSums {
    if (this.#keptSums === undefined) {
      const what = 'sums that blocks keep for each other'
      const sums = this.allocate(this.#multiprocessors * KEPT_BYTES, what)
      try {
        const ready = this.allocate(this.#multiprocessors * KEPT_FLAGS * 4, what)
        this.fill(ready, 0, what)
        this.#keptSums = { sums, ready }
      } catch (error) {
        sums.dispose()
        throw error
      }
    }
    return this.#keptSums
  }

  override dispose(): void {
    this.#keptSums?.sums.dispose()
    this.#keptSums?.ready.dispose()
    this.#keptSums = undefined
    super.dispose()
  }

  /** Memory for work on this stream; another one that uses it must wait for an event first. Its content is undefined. */
  allocate(bytes: number, what: string): CudaBuffer {
    return guarded(() => new CudaBuffer(this.addon, this.addon.cudaAllocate(this.native, bytes, what), bytes))
  }

  /** Sets every byte. */
  fill(buffer: CudaBuffer, value: number, what: string): void {
    guarded(() => this.addon.cudaFill(this.native, buffer.native, 0, buffer.bytes, value, what))
  }

  copy(from: CudaBuffer, to: CudaBuffer, what: string): void {
    if (from.bytes !== to.bytes) {
      throw new BackendError(`${what}: expected buffers of one size but received ${from.bytes} and ${to.bytes} bytes`)
    }
    guarded(() => this.addon.cudaCopy(this.native, from.native, 0, to.native, 0, from.bytes, what))
  }

  /** Resolves when `data` was read; later work on this stream sees it in the buffer. Lets others run between chunks. */
  async upload(buffer: CudaBuffer, data: ArrayBufferView, what: string, offset = 0): Promise<void> {
    const bytes = bytesOf(data, what)
    const chunk = this.addon.cudaChunkBytes
    for (let at = 0; at < bytes.length; at += chunk) {
      if (at > 0) await setImmediate()
      guarded(() =>
        this.addon.cudaUpload(this.native, bytes.subarray(at, at + chunk), buffer.native, offset + at, what),
      )
    }
  }

  /** Packs a piece of an INT4 weight, on all of the machine's threads; see CudaAddon. For packInt4. */
  uploadInt4(slab: NativeInt4Slab, format: NativeInt4Format, to: CudaBuffer, offset: number, what: string): number {
    return guarded(() => this.addon.cudaUploadInt4(this.native, slab, format, to.native, offset, what))
  }

  /**
   * Resolves when `into` holds what the buffer held after all work enqueued so far. Beyond 8 MiB parts of the copy are
   * enqueued as others end, so leave the buffer alone until then.
   */
  async download<T extends ArrayBufferView>(buffer: CudaBuffer, into: T, what: string, offset = 0): Promise<T> {
    const bytes = bytesOf(into, what)
    const chunk = this.addon.cudaChunkBytes
    const parts: Promise<void>[] = []
    for (let at = 0; at < Math.max(bytes.length, 1); at += chunk) {
      if (parts.length >= 4) await settled(parts.shift()!)
      const part = bytes.subarray(at, at + chunk)
      const done = guarded(() => this.addon.cudaDownload(this.native, buffer.native, offset + at, part, what))
      done.catch(() => undefined) // an earlier part's failure may be reported first
      parts.push(done)
    }
    for (const part of parts) await settled(part)
    return into
  }

  launch(kernel: CudaKernel, shape: LaunchShape, args: readonly Argument[], what: string): void {
    const full = { cluster: 1, sharedBytes: 0, dependent: false, ...shape }
    guarded(() => this.addon.cudaLaunch(this.native, kernel.native, full, args.map(lowerArgument), what))
  }

  /** Resolves when all work enqueued so far is done; rejects if any of it failed. */
  synchronize(): Promise<void> {
    return settled(guarded(() => this.addon.cudaSynchronize(this.native)))
  }

  /** A point in this stream's work. */
  record(): CudaEvent {
    return guarded(() => new CudaEvent(this.addon, 'event', this.addon.cudaRecord(this.native)))
  }

  /** Work enqueued from here on starts after `event`, which may be another stream's. */
  waitFor(event: CudaEvent): void {
    guarded(() => this.addon.cudaWaitFor(this.native, event.native))
  }

  /** What `enqueue` puts on this stream becomes a graph instead of running. No transfers with the host, no allocation. */
  capture(enqueue: () => void): CudaGraph {
    this.keptSums()
    guarded(() => this.addon.cudaBeginCapture(this.native))
    let failure: BackendError | undefined
    try {
      enqueue()
    } catch (error) {
      failure = asBackendError(error)
    }
    try {
      const graph = new CudaGraph(this.addon, 'graph', this.addon.cudaEndCapture(this.native))
      if (failure === undefined) return graph
      graph.dispose()
    } catch (error) {
      failure ??= asBackendError(error)
    }
    throw failure
  }

  /** Runs a graph that was captured on this stream. */
  replay(graph: CudaGraph, what: string): void {
    guarded(() => this.addon.cudaReplay(this.native, graph.native, what))
  }
}

function bytesOf(view: ArrayBufferView, what: string): Uint8Array {
  try {
    return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  } catch (error) {
    throw new BackendError(`${what}: the array's memory is detached`, { cause: error })
  }
}

function lowerArgument(argument: Argument): NativeArgument {
  if (argument === null) return new Uint8Array(8)
  if (argument instanceof CudaBuffer) return partOf(argument)
  if ('tensor' in argument) return { ...argument, tensor: partOf(argument.tensor) }
  if ('fields' in argument) return argument.fields.map(lowerArgument)
  const { type, value } = argument
  switch (type) {
    case 'i32':
      return new Uint8Array(Int32Array.of(value).buffer)
    case 'u32':
      return new Uint8Array(Uint32Array.of(value).buffer)
    case 'f32':
      return new Uint8Array(Float32Array.of(value).buffer)
  }
}

function partOf(buffer: CudaBuffer): NativePart {
  return { buffer: buffer.native, offset: 0, bytes: buffer.bytes }
}

async function settled<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise
  } catch (error) {
    throw asBackendError(error)
  }
}
