import type { BufferHandle, CudaAddon, EventHandle, GraphHandle, KernelHandle } from './addon-types.js'
import { CudaResource, guarded } from './handle.js'

/** Device memory. Captured graphs keep the memory they use, whoever disposes it. */
export class CudaBuffer extends CudaResource<BufferHandle> {
  readonly bytes: number

  constructor(addon: CudaAddon, handle: BufferHandle, bytes: number) {
    super(addon, 'buffer', handle)
    this.bytes = bytes
  }
}

/** A kernel of this build, loaded on one device. */
export class CudaKernel extends CudaResource<KernelHandle> {
  readonly #constants = new Map<string, Uint8Array>()

  /** The bytes of a constant in the kernel's file, read once. */
  constant(name: string): Uint8Array {
    let value = this.#constants.get(name)
    if (value === undefined) {
      value = guarded(() => this.addon.cudaConstant(this.native, name))
      this.#constants.set(name, value)
    }
    return value
  }
}

/** A point in a stream's work, with the time it was reached. */
export class CudaEvent extends CudaResource<EventHandle> {
  /** Milliseconds from `start` to this, both reached. */
  since(start: CudaEvent): number {
    return guarded(() => this.addon.cudaElapsed(start.native, this.native))
  }
}

/** Captured work that runs again with one call. */
export class CudaGraph extends CudaResource<GraphHandle> {}
