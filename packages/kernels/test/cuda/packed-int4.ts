import { bf16BitsToF32 } from '@fireq/formats'

export interface Unpacked {
  /** [rows, columns], rows padded to 64. */
  readonly codes: Int8Array
  /** [rows, columns / group] */
  readonly scales: Float32Array
}

/**
 * Decodes packed blocks as a tensor core's thread would: masks give E4M3 bytes in the A fragment of wgmma m64nNk32 (PTX ISA,
 * "Register fragments for wgmma.mma_async.m64nNk32"): thread t of 128 has rows 16 ⌊t/32⌋ + ⌊t%32/4⌋ and 8 more, columns
 * 4 (t%4) … + 3 and 16 more. An independent reading of kernels/cuda/int4.cuh for tests.
 */
export function unpackBlocks(
  blocks: Uint8Array,
  [n, k]: readonly [number, number],
  full: boolean,
  scaleBytes: number,
  groupSize = 128,
): Unpacked {
  const [rows, across, subgroups] = [Math.ceil(n / 64) * 64, k / 128, 128 / groupSize]
  const [groups, blockBytes] = [k / groupSize, 4096 + subgroups * 64 * scaleBytes]
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength)
  const codes = new Int8Array(rows * k).fill(99)
  const scales = new Float32Array(rows * groups)
  const e4m3Bytes = (word: number): number => {
    const masked = (word & 0x87878787) >>> 0
    return full ? (masked + ((word & 0x80808080) >>> 7)) >>> 0 : masked
  }
  for (let block = 0; block < (rows / 64) * across; block++) {
    const [base, firstRow, column] = [block * blockBytes, Math.floor(block / across) * 64, (block % across) * 128]
    for (let thread = 0; thread < 128; thread++) {
      const row = firstRow + 16 * (thread >> 5) + ((thread & 31) >> 2)
      for (let i = 0; i < 8; i++) {
        const word = view.getUint32(base + (i >> 2) * 2048 + thread * 16 + (i & 3) * 4, true)
        const rotated = ((word >>> 4) | (word << 28)) >>> 0
        const at = column + (i >> 1) * 32 + (i & 1) * 16 + (thread & 3) * 4
        for (let b = 0; b < 4; b++) {
          codes[row * k + at + b] = subnormal((e4m3Bytes(word) >>> (8 * b)) & 255)
          codes[(row + 8) * k + at + b] = subnormal((e4m3Bytes(rotated) >>> (8 * b)) & 255)
        }
      }
    }
    for (let i = 0; i < subgroups * 64; i++) {
      const at = base + 4096 + i * scaleBytes
      const scale = scaleBytes === 4 ? view.getFloat32(at, true) : bf16BitsToF32(view.getUint16(at, true))
      scales[(firstRow + (i % 64)) * groups + column / groupSize + Math.floor(i / 64)] = scale
    }
  }
  return { codes, scales }
}

/** An E4M3 byte below 2⁻⁵, in units of 2⁻⁹. */
function subnormal(byte: number): number {
  const magnitude = byte & 0x7f
  if (magnitude > 8) throw new Error(`0x${byte.toString(16)} is no code`)
  return byte & 0x80 ? -magnitude : magnitude
}

/**
 * The same of blocks for BF16 activations, in the A fragment of wgmma m64nNk16 (PTX ISA, "Register fragments for
 * wgmma.mma_async.m64nNk16"): register j of thread t has row 16 ⌊t/32⌋ + ⌊t%32/4⌋ + 8 (j % 2), columns 2 (t%4) + 8 ⌊j/2⌋ and
 * the next. An independent reading of kernels/cuda/int4_bf16.cuh.
 */
export function unpackBf16Blocks(blocks: Uint8Array, [n, k]: readonly [number, number], scaleBytes: number): Unpacked {
  const [rows, groups, blockBytes] = [Math.ceil(n / 64) * 64, k / 128, 4096 + 64 * scaleBytes]
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength)
  const codes = new Int8Array(rows * k).fill(99)
  const scales = new Float32Array(rows * groups)
  for (let block = 0; block < (rows / 64) * groups; block++) {
    const [base, firstRow, group] = [block * blockBytes, Math.floor(block / groups) * 64, block % groups]
    for (let thread = 0; thread < 128; thread++) {
      for (let step = 0; step < 8; step++) {
        const word = view.getUint32(base + (step >> 2) * 2048 + thread * 16 + (step & 3) * 4, true)
        for (let j = 0; j < 4; j++) {
          const row = firstRow + 16 * (thread >> 5) + ((thread & 31) >> 2) + 8 * (j & 1)
          const at = row * k + group * 128 + 16 * step + 2 * (thread & 3) + 8 * (j >> 1)
          const pair = (word >>> (4 * j)) & 0x000f000f
          codes[at] = (pair & 15) - 8
          codes[at + 1] = (pair >>> 16) - 8
        }
      }
    }
    for (let row = 0; row < 64; row++) {
      const at = base + 4096 + row * scaleBytes
      const scale = scaleBytes === 4 ? view.getFloat32(at, true) : bf16BitsToF32(view.getUint16(at, true))
      scales[(firstRow + row) * groups + group] = scale
    }
  }
  return { codes, scales }
}
