import { BackendError } from '../errors.js'
import { expectBytes } from './checks.js'
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
  // Where all rows are on their way at once what counts is how soon one is done.
  const few = rows <= RESIDENT_ROWS * device.info.multiprocessors
  const { vectors, threads } = rowBlock(rows, columns, 1024, what, few ? 1024 : THREADS_WANTED)
  expectBytes(what, { x: [x, rows * columns * 2], out: [out, rows * columns], scale: [scale, rows * 4] })
  if (rows === 0) return
  const kernel = device.kernel(`quantize_tokens_${vectors}`)
  const shape = { grid: [rows, 1, 1], block: [threads, 1, 1], dependent } as const
  stream.launch(kernel, shape, [x, out, scale, { type: 'i32', value: columns }], what)
}

/** The op `rmsNormQuantize` with a BF16 intermediate, in FP32; at most 16384 columns. */
export function rmsNormQuantize(device: CudaDevice, stream: CudaStream, op: RmsNormQuantize): void {
  const { x, weight, eps, rows, columns, out, scale, dependent = false } = op
  const what = `rmsNormQuantize of x [${rows}, ${columns}]`
  const { vectors, threads } = rowBlock(rows, columns, 512, what)
  expectBytes(what, {
    x: [x, rows * columns * 2],
    weight: [weight, columns * 2],
    out: [out, rows * columns],
    scale: [scale, rows * 4],
  })
  if (rows === 0) return
  const kernel = device.kernel(`rms_norm_quantize_${vectors}`)
  const resident = device.info.multiprocessors * Math.floor(RESIDENT_THREADS[vectors]! / threads)
  const shape = { grid: [Math.min(rows, resident), 1, 1], block: [threads, 1, 1], dependent } as const
  const i32 = (value: number) => ({ type: 'i32', value }) as const
  stream.launch(kernel, shape, [x, weight, { type: 'f32', value: eps }, out, scale, i32(rows), i32(columns)], what)
}

const VECTOR = 8
const WARP = 32
/** Above this, a block's warps wait for each other longer than more blocks would cover; more vectors a thread instead. */
const THREADS_WANTED = 256
const MOST_VECTORS = 4
/** Blocks of 1024 threads of `quantize_tokens` that a multiprocessor holds. */
const RESIDENT_ROWS = 2
/** Threads of the fused kernel that a multiprocessor holds, by vectors a thread: its registers allow them. */
const RESIDENT_THREADS: Readonly<Record<number, number>> = { 1: 3 * 512, 2: 2 * 512, 4: 512 }

/** A block a row: 16-byte vectors a thread (1, 2 or 4) and the threads: `wanted` at most unless there are more than 4 vectors for each. */
export function rowBlock(
  rows: number,
  columns: number,
  mostThreads: number,
  what: string,
  wanted: number = THREADS_WANTED,
): RowBlock {
  if (!Number.isInteger(rows) || rows < 0 || rows >= 2 ** 31) {
    throw new BackendError(`${what}: expected a whole number of rows below 2³¹ but received ${rows}`)
  }
  const most = mostThreads * VECTOR * MOST_VECTORS
  if (!Number.isInteger(columns) || columns < VECTOR || columns % VECTOR !== 0 || columns > most) {
    throw new BackendError(
      `${what}: expected columns a multiple of ${VECTOR}, at most ${most}, but received ${columns}`,
    )
  }
  const threadsFor = (vectors: number): number => Math.ceil(columns / VECTOR / vectors / WARP) * WARP
  const vectors = [1, 2].find((candidate) => threadsFor(candidate) <= wanted) ?? MOST_VECTORS
  return { vectors, threads: threadsFor(vectors) }
}

export interface RowBlock {
  readonly vectors: number
  readonly threads: number
}
