import { requireAddon } from '../native/load.js'
import type { CudaAddon, CudaMemory, DeviceHandle } from './addon-types.js'
import { CudaResource, guarded } from './handle.js'
import { CudaKernel } from './resources.js'
import { type CudaDeviceInfo, DRIVER_LIBRARY, describeDevice } from './status.js'
import { CudaStream } from './stream.js'

export interface OpenOptions {
  /** Which GPU; default: 0. */
  readonly ordinal?: number
  /** The driver's library; default: libcuda.so.1, found as the system finds libraries. */
  readonly library?: string
}

/**
 * One GPU. Whatever is made on it keeps it open, so it may be disposed first. Calls come from one thread; a device opened
 * twice has two caches of memory.
 */
export class CudaDevice extends CudaResource<DeviceHandle> {
  readonly info: CudaDeviceInfo
  readonly #kernels = new Map<string, CudaKernel>()

  private constructor(addon: CudaAddon, handle: DeviceHandle) {
    super(addon, 'device', handle)
    this.info = describeDevice(addon.cudaDescribe(handle))
  }

  /** Throws a BackendError that says why it can't: no driver, too old, no such GPU, or one the kernels don't run on. */
  static open({ ordinal = 0, library = DRIVER_LIBRARY }: OpenOptions = {}): CudaDevice {
    const addon = requireAddon()
    return guarded(() => new CudaDevice(addon, addon.cudaOpenDevice(library, ordinal)))
  }

  createStream(): CudaStream {
    return guarded(() => new CudaStream(this.addon, this.addon.cudaStream(this.native), this.info.multiprocessors))
  }

  /** A kernel of this build by its name, loaded once. */
  kernel(name: string): CudaKernel {
    let kernel = this.#kernels.get(name)
    if (kernel === undefined) {
      kernel = guarded(() => new CudaKernel(this.addon, 'kernel', this.addon.cudaKernel(this.native, name)))
      this.#kernels.set(name, kernel)
    }
    return kernel
  }

  /** Whether this build has such a kernel. */
  hasKernel(name: string): boolean {
    return this.#kernels.has(name) || this.addon.cudaKernels().some((kernel) => kernel.name === name)
  }

  memory(): CudaMemory {
    return guarded(() => this.addon.cudaMemory(this.native))
  }

  /** Waits for the device and gives cached memory back to the driver; returns the bytes. */
  trim(): number {
    return guarded(() => this.addon.cudaTrim(this.native))
  }

  override dispose(): void {
    for (const kernel of this.#kernels.values()) kernel.dispose()
    this.#kernels.clear()
    super.dispose()
  }
}
