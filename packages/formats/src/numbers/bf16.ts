/**
 * BF16 (bfloat16): 1 sign, 8 exponent and 7 fraction bits, the upper half of a float32.
 *
 * Rounding is to nearest, ties to even; too large becomes infinity, as IEEE 754 has it. Every NaN becomes 0x7FC0.
 * Scalars are JavaScript numbers (float64) and are **first rounded to float32**, then to BF16, so that a scalar and an
 * element of a `Float32Array` with the same value always give the same bits. (Rounding twice may differ by one ulp from
 * rounding the float64 once: 1 + 2⁻⁸ + 2⁻⁴⁰ becomes 1, not 1 + 2⁻⁷.)
 */
import { outputFor } from './output.js'

const NAN_BITS = 0x7fc0
const INFINITY_F32 = 0x7f800000

const scalar = new Float32Array(1)
const scalarBits = new Int32Array(scalar.buffer)

/** float32 bits → BF16 bits. Signed 32-bit arithmetic can't overflow here: no finite magnitude carries past infinity. */
function roundBits(u: number): number {
  if ((u & 0x7fffffff) > INFINITY_F32) return NAN_BITS
  return (u + 0x7fff + ((u >>> 16) & 1)) >>> 16
}

function bitsOf(x: Float32Array): Int32Array {
  return new Int32Array(x.buffer, x.byteOffset, x.length)
}

/** The BF16 bit pattern of `x` (rounded to float32 first, then to nearest even). */
export function f32ToBf16Bits(x: number): number {
  scalar[0] = x
  return roundBits(scalarBits[0])
}

/** The exact value of a BF16 bit pattern (its low 16 bits). */
export function bf16BitsToF32(bits: number): number {
  scalarBits[0] = bits << 16
  return scalar[0]
}

/** `x` rounded to the nearest BF16 value. */
export function roundBf16(x: number): number {
  scalar[0] = x
  scalarBits[0] = roundBits(scalarBits[0]) << 16
  return scalar[0]
}

/** BF16 bit patterns of `src`, into `out` (same length) or a new array. */
export function encodeBf16(src: Float32Array, out?: Uint16Array): Uint16Array {
  const bits = bitsOf(src)
  const result = outputFor(out, src.length, (n) => new Uint16Array(n), 'encodeBf16')
  for (let i = 0; i < bits.length; i++) result[i] = roundBits(bits[i])
  return result
}

/** Exact values of BF16 bit patterns, into `out` (same length) or a new array. */
export function decodeBf16(src: Uint16Array, out?: Float32Array): Float32Array {
  const result = outputFor(out, src.length, (n) => new Float32Array(n), 'decodeBf16')
  const bits = bitsOf(result)
  for (let i = 0; i < src.length; i++) bits[i] = src[i] << 16
  return result
}

/** Rounds every element to the nearest BF16 value, in place. */
export function roundBf16Array(x: Float32Array): void {
  const bits = bitsOf(x)
  for (let i = 0; i < bits.length; i++) bits[i] = roundBits(bits[i]) << 16
}
