import type { CudaDevice } from '../../../src/cuda/device.js'
import type { Random } from '../../conformance/random.js'

/**
 * A test that runs on a device: under vitest here, and by node's own test runner on a machine that has only a driver (see
 * scripts/gpu-bundle.mjs). It throws if something is wrong.
 */
export interface GpuCase {
  readonly name: string
  run(device: CudaDevice, random: Random): Promise<void>
}
