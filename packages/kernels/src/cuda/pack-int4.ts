import { setImmediate } from 'node:timers/promises'
import type { Int4Tensor } from '@fireq/formats'
import type { NativeInt4Format, NativeInt4Slab } from './addon-types.js'
import { asBackendError } from './handle.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

/** Rows of a packed block, and its bytes of codes. */
const BLOCK_ROWS = 64
const BLOCK_CODE_BYTES = 4096
const BLOCK_COLUMNS = 128
/** Of packed bytes: enough rows of blocks for many threads, and soon done. */
const SLAB_BYTES = 2 ** 22

export interface PackedInt4 {
  readonly blocks: CudaBuffer
  /** There is a −8, which costs some speed with FP8 activations; always so for BF16 ones, where it costs nothing. */
  readonly full: boolean
  /** 2: every group's scale times its row's is a BF16 number. 4: they are kept in FP32. */
  readonly scaleBytes: 2 | 4
}

/** Bytes of a packed [N, K] weight in groups of 32, 64 or 128. */
export function packedBytes(n: number, k: number, groupSize: number, scaleBytes: number): number {
  const blockBytes = BLOCK_CODE_BYTES + (BLOCK_COLUMNS / groupSize) * BLOCK_ROWS * scaleBytes
  return Math.ceil(n / BLOCK_ROWS) * (k / BLOCK_COLUMNS) * blockBytes
}

/**
 * Packs a weight into a device buffer (kernels/cuda/int4.cuh; int4_bf16.cuh for BF16 activations), on all threads, a slab
 * at a time. It begins with the cheapest format and starts over with the next when it meets what that can't hold, which is
 * usually at the very start. Row factors become part of the group scales, except with look-up rounding, which is left to
 * kernels.
 */
export async function packInt4(
  stream: CudaStream,
  tensor: Int4Tensor,
  interleave: boolean,
  what: string,
  activations: 'e4m3' | 'bf16' = 'e4m3',
): Promise<PackedInt4> {
  const [n, k] = tensor.shape
  const forBf16 = activations === 'bf16'
  let full = forBf16
  let scaleBytes: 2 | 4 = 2
  for (;;) {
    const blocks = stream.allocate(packedBytes(n, k, tensor.groupSize, scaleBytes), what)
    try {
      const missing = await uploadSlabs(
        stream,
        slabsOf(tensor, interleave),
        { full, scaleBytes, forBf16 },
        blocks,
        what,
      )
      if (missing === 0) return { blocks, full, scaleBytes }
      full ||= (missing & 1) !== 0
      if ((missing & 2) !== 0) scaleBytes = 4
    } catch (error) {
      blocks.dispose()
      throw asBackendError(error)
    }
    blocks.dispose()
  }
}

/** Returns what the format can't hold; stops at the first slab that says so. */
async function uploadSlabs(
  stream: CudaStream,
  slabs: Iterable<NativeInt4Slab>,
  format: NativeInt4Format,
  to: CudaBuffer,
  what: string,
): Promise<number> {
  let offset = 0
  for (const slab of slabs) {
    await setImmediate() // packing a slab takes a moment: lets others run between two
    const missing = stream.uploadInt4(slab, format, to, offset, what)
    if (missing !== 0) return missing
    offset += packedBytes(slab.rows, slab.columns, slab.groupSize, format.scaleBytes)
  }
  return 0
}

/** The weight in pieces of whole rows of blocks. */
function* slabsOf(tensor: Int4Tensor, interleave: boolean): Generator<NativeInt4Slab> {
  const { shape, groupSize, groupScale } = tensor
  const [n, k] = shape
  const step = BLOCK_ROWS * Math.max(1, Math.floor(SLAB_BYTES / packedBytes(BLOCK_ROWS, k, groupSize, 2)))
  for (let firstRow = 0; firstRow < n; firstRow += step) {
    const rows = Math.min(step, n - firstRow)
    const parts = interleave
      ? [partOf(tensor, firstRow / 2, rows / 2), partOf(tensor, (n + firstRow) / 2, rows / 2)]
      : [partOf(tensor, firstRow, rows)]
    yield { parts, scaleType: groupScale.dtype, rows, columns: k, groupSize, firstRow }
  }
}

function partOf(tensor: Int4Tensor, from: number, rows: number): NativeInt4Slab['parts'][number] {
  const { shape, groupSize, codes, groupScale, channelScale, lookupRounding } = tensor
  const [codeBytes, groups] = [shape[1] / 2, shape[1] / groupSize]
  return {
    codes: codes.subarray(from * codeBytes, (from + rows) * codeBytes),
    scales: groupScale.data.subarray(from * groups, (from + rows) * groups),
    channelScale: lookupRounding ? undefined : channelScale?.subarray(from, from + rows),
  }
}
