import { BackendError } from '../errors.js'
import type { CudaDevice } from './device.js'
import type { CudaKernel } from './resources.js'

/** kernels/cuda/attention_info.h */
export interface AttentionInfo {
  readonly threads: number
  readonly sharedBytes: number
  readonly heads: number
  readonly queries: number
  readonly bytes: number
}

/** An attention kernel and what its launcher must know of it. */
export interface AttentionKernel {
  readonly kernel: CudaKernel
  readonly info: AttentionInfo
}

/** Loads a kernel by its first use: not in a capture, so whatever launches one in a capture asks for it before. */
export function attentionKernel(device: CudaDevice, name: string): AttentionKernel {
  const kernel = device.kernel(name)
  const bytes = kernel.constant(`${name}_info`)
  if (bytes.length !== 20) throw new BackendError(`Expected 20 bytes of ${name}_info but received ${bytes.length}`)
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const at = (index: number): number => view.getInt32(4 * index, true)
  return { kernel, info: { threads: at(0), sharedBytes: at(1), heads: at(2), queries: at(3), bytes: at(4) } }
}
