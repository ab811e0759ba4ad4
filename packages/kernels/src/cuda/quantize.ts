import { BackendError } from '../errors.js'
import type { LaunchShape } from './addon-types.js'
import type { CudaDevice } from './device.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

// Launchers of kernels/cuda/quantize.cu.

export interface QuantizeTokens {
  /** BF16 [rows, columns]. */
  readonly x: CudaBuffer
  readonly rows: number
  /** A multiple of 8, at most 32768. */
  readonly columns: number
  /** E4M3 [rows, columns]. */
  readonly out: CudaBuffer
  /** FP32 [rows]. */
  readonly scale: CudaBuffer
  /** See LaunchShape. */
  readonly dependent?: boolean
}

export interface RmsNormQuantize extends QuantizeTokens {
  /** BF16 [columns]. */
  readonly weight: CudaBuffer
  readonly eps: number
}

/** The op `quantizeFp8` with one scale a token, equal to the reference to the bit. */
export function quantizeTokens(device: CudaDevice, stream: CudaStream, op: QuantizeTokens): void {
  const { x, rows, columns, out, scale, dependent = false } = op
  const what = `quantizeFp8 of x [${rows}, ${columns}]`
  const launch = rowLaunch(rows, columns, what)
  expectBytes(what, { x: [x, rows * columns * 2], out: [out, rows * columns], scale: [scale, rows * 4] })
  if (rows === 0) return
  const kernel = device.kernel(`quantize_tokens_${launch.vectors}`)
  stream.launch(kernel, { ...launch.shape, dependent }, [x, out, scale, { type: 'i32', value: columns }], what)
}

/** The op `rmsNormQuantize` with a BF16 intermediate, in FP32. */
export function rmsNormQuantize(device: CudaDevice, stream: CudaStream, op: RmsNormQuantize): void {
  const { x, weight, eps, rows, columns, out, scale, dependent = false } = op
  const what = `rmsNormQuantize of x [${rows}, ${columns}]`
  const launch = rowLaunch(rows, columns, what)
  expectBytes(what, {
    x: [x, rows * columns * 2],
    weight: [weight, columns * 2],
    out: [out, rows * columns],
    scale: [scale, rows * 4],
  })
  if (rows === 0) return
  const kernel = device.kernel(`rms_norm_quantize_${launch.vectors}`)
  const epsilon = { type: 'f32', value: eps } as const
  const width = { type: 'i32', value: columns } as const
  stream.launch(kernel, { ...launch.shape, dependent }, [x, weight, epsilon, out, scale, width], what)
}

const VECTOR = 8
const WARP = 32
const MOST_THREADS = 1024
/** Above this, a block's warps wait for each other longer than more blocks would cover; more vectors a thread instead. */
const THREADS_WANTED = 512

/** A block a row: 16-byte vectors a thread (1, 2 or 4) and the launch. */
export function rowLaunch(rows: number, columns: number, what: string): { vectors: number; shape: LaunchShape } {
  if (!Number.isInteger(rows) || rows < 0 || rows >= 2 ** 31) {
    throw new BackendError(`${what}: expected a whole number of rows below 2³¹ but received ${rows}`)
  }
  const most = MOST_THREADS * VECTOR * 4
  if (!Number.isInteger(columns) || columns < VECTOR || columns % VECTOR !== 0 || columns > most) {
    throw new BackendError(
      `${what}: expected columns a multiple of ${VECTOR}, at most ${most}, but received ${columns}`,
    )
  }
  const threadsFor = (vectors: number): number => Math.ceil(columns / VECTOR / vectors / WARP) * WARP
  const vectors = [1, 2].find((candidate) => threadsFor(candidate) <= THREADS_WANTED) ?? 4
  return { vectors, shape: { grid: [Math.max(rows, 1), 1, 1], block: [threadsFor(vectors), 1, 1] } }
}

function expectBytes(what: string, buffers: Readonly<Record<string, readonly [CudaBuffer, number]>>): void {
  for (const [name, [buffer, bytes]] of Object.entries(buffers)) {
    if (buffer.bytes < bytes) {
      throw new BackendError(`${what}: expected ${name} of at least ${bytes} bytes but received ${buffer.bytes}`)
    }
  }
}
