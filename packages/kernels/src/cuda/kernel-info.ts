import { BackendError } from '../errors.js'
import type { CudaKernel } from './resources.js'

/** kernels/cuda/kernel_info.h */
export interface KernelInfo {
  readonly features: number
  readonly tokens: number
  readonly batch: number
  readonly storeTokens: number
  readonly cluster: number
  readonly threads: number
  readonly sharedBytes: number
  readonly fullCodes: boolean
  readonly scaleBytes: number
  readonly keptBytes: number
}

/** What a launcher must know of a kernel, which its file says. */
export function kernelInfo(kernel: CudaKernel, name: string): KernelInfo {
  const bytes = kernel.constant(`${name}_info`)
  if (bytes.length !== 40) throw new BackendError(`Expected 40 bytes of ${name}_info but received ${bytes.length}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const at = (index: number): number => view.getInt32(4 * index, true)
  return {
    features: at(0),
    tokens: at(1),
    batch: at(2),
    storeTokens: at(3),
    cluster: at(4),
    threads: at(5),
    sharedBytes: at(6),
    fullCodes: at(7) !== 0,
    scaleBytes: at(8),
    keptBytes: at(9),
  }
}
