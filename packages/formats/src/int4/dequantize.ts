import { decodeBf16 } from '../numbers/bf16.js'
import { roundE4m3 } from '../numbers/e4m3.js'
import { decodeF16 } from '../numbers/f16.js'
import type { Int4Tensor, Tensor } from '../tensor.js'
import { checkInt4Tensor } from './check.js'
import { unpackInt4 } from './pack.js'
import { decodeScales } from './scale-array.js'

/**
 * The values of an INT4 tensor, [N, K] in float32: code · groupScale · channelScale, or with `lookupRounding`
 * E4M3(code · groupScale) · channelScale. The product is exact before it is rounded once to float32.
 */
export function dequantizeInt4(t: Int4Tensor): Float32Array {
  checkInt4Tensor(t)
  const [N, K] = t.shape
  const { groupSize, codes, channelScale, lookupRounding } = t
  const groups = K / groupSize
  const scales = decodeScales(t.groupScale)
  const values = new Float32Array(N * K)
  // A group has only 16 values.
  const table = new Float32Array(16)
  for (let g = 0; g < scales.length; g++) {
    const channel = channelScale ? channelScale[Math.floor(g / groups)] : 1
    for (let nibble = 0; nibble < 16; nibble++) {
      const product = (nibble - 8) * scales[g]
      table[nibble] = (lookupRounding ? roundE4m3(product) : product) * channel
    }
    for (let i = g * groupSize; i < (g + 1) * groupSize; i += 2) {
      const byte = codes[i >>> 1]
      values[i] = table[byte & 15]
      values[i + 1] = table[byte >>> 4]
    }
  }
  return values
}

/** The codes −8…7 of an INT4 tensor, [N, K]. */
export function int4Codes(t: Int4Tensor): Int8Array {
  checkInt4Tensor(t)
  return unpackInt4(t.codes)
}

/** The values of any tensor in float32, row-major, always in a new array. */
export function toFloat32(t: Tensor): Float32Array {
  if (t.kind === 'int4') return dequantizeInt4(t)
  if (t.dtype === 'f32') return t.data.slice()
  return t.dtype === 'bf16' ? decodeBf16(t.data) : decodeF16(t.data)
}
