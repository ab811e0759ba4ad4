import { decodeBf16, encodeBf16, roundBf16 } from '../numbers/bf16.js'
import { decodeE4m3, E4M3_LEAST, E4M3_MAX, encodeE4m3, roundE4m3 } from '../numbers/e4m3.js'
import type { ScaleArray, ScaleDType } from '../tensor.js'

/** Scales as stored, from float32 values (rounded to nearest even, E4M3 saturating). */
export function encodeScales(values: Float32Array, dtype: ScaleDType): ScaleArray {
  if (dtype === 'bf16') return { dtype, data: encodeBf16(values) }
  if (dtype === 'e4m3') return { dtype, data: encodeE4m3(values) }
  return { dtype, data: values.slice() }
}

/** The exact float32 values of stored scales. The result is a new array. */
export function decodeScales(scales: ScaleArray): Float32Array {
  if (scales.dtype === 'bf16') return decodeBf16(scales.data)
  if (scales.dtype === 'e4m3') return decodeE4m3(scales.data)
  return scales.data.slice()
}

/**
 * `scale` rounded to what its dtype can hold and a division can use: nearest even, but never 0, and in E4M3 at least
 * 2⁻⁹ in magnitude. The sign is kept.
 * @throws RangeError where the scale isn't finite, is 0, or is too large for the dtype
 */
export function roundScale(scale: number, dtype: ScaleDType): number {
  const limit = dtype === 'e4m3' ? E4M3_MAX : Number.MAX_VALUE
  if (!(Math.abs(scale) <= limit) || scale === 0) {
    throw new RangeError(`Expected a group scale that ${dtype} can hold but received ${scale}`)
  }
  const rounded = dtype === 'bf16' ? roundBf16(scale) : dtype === 'e4m3' ? roundE4m3(scale) : Math.fround(scale)
  const least = dtype === 'e4m3' ? E4M3_LEAST : 2 ** -126
  const magnitude = Math.max(Math.abs(rounded), least)
  if (magnitude === Infinity)
    throw new RangeError(`Expected a group scale that ${dtype} can hold but received ${scale}`)
  return scale < 0 ? -magnitude : magnitude
}
