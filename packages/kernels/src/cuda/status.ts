import { loadAddon } from '../native/load.js'
import type { NativeCudaDevice } from './addon-types.js'

/** The name that the NVIDIA driver's library goes by. */
export const DRIVER_LIBRARY = 'libcuda.so.1'

/** Whether CUDA can be used here. */
export interface CudaStatus {
  readonly usable: boolean
  /** The first thing that stands in the way, with versions; undefined if CUDA is usable. */
  readonly problem: string | undefined
  /** The CUDA version the driver supports, "13.0"; undefined without a driver. */
  readonly driverVersion: string | undefined
  /** The driver's own version, "580.95.05". */
  readonly driverRelease: string | undefined
  /** The CUDA version the kernels were built with; undefined if this build has none. */
  readonly toolkitVersion: string | undefined
  readonly devices: readonly CudaDeviceInfo[]
}

export interface CudaDeviceInfo extends Omit<NativeCudaDevice, 'problem'> {
  /** Why this device can't be used; undefined if it can. */
  readonly problem: string | undefined
}

/** Looks for a driver, a GPU that the kernels run on, and the kernels. Opens no context, and never throws. */
export function cudaStatus(library: string = DRIVER_LIBRARY): CudaStatus {
  const { addon } = loadAddon()
  if (addon === undefined) return { ...nothing, problem: 'the native addon is not loaded' }
  const status = addon.cudaStatus(library)
  return {
    usable: status.problem === '',
    problem: status.problem || undefined,
    driverVersion: status.driverVersion || undefined,
    driverRelease: status.driverRelease || undefined,
    toolkitVersion: status.toolkitVersion || undefined,
    devices: status.devices.map(describeDevice),
  }
}

const nothing: CudaStatus = {
  usable: false,
  problem: undefined,
  driverVersion: undefined,
  driverRelease: undefined,
  toolkitVersion: undefined,
  devices: [],
}

export function describeDevice(device: NativeCudaDevice): CudaDeviceInfo {
  return { ...device, problem: device.problem || undefined }
}

/** One line for people: what CUDA would run on, or why it can't. */
export function describeStatus(status: CudaStatus): string {
  if (status.problem !== undefined) return status.problem
  const gpus = status.devices
    .filter(({ problem }) => problem === undefined)
    .map(({ ordinal, name, totalBytes }) => `GPU ${ordinal}: ${name}, ${(totalBytes / 2 ** 30).toFixed(0)} GiB`)
  const release = status.driverRelease === undefined ? '' : ` ${status.driverRelease}`
  return `${gpus.join('; ')}; driver${release} for CUDA ${status.driverVersion}, kernels of CUDA ${status.toolkitVersion}`
}
