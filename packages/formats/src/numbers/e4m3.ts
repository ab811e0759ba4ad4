/**
 * FP8 E4M3, the "fn" variant of the OCP 8-bit formats: 1 sign, 4 exponent and 3 fraction bits, bias 7, no infinity.
 * The largest value is 448, subnormals are multiples of 2⁻⁹, and 0x7F / 0xFF are the only NaNs.
 *
 * Rounding is to nearest, ties to even; everything beyond ±448, infinities too, **saturates** to ±448 (what `cvt.satfinite`
 * does on a GPU). Every NaN becomes 0x7F. Scalars are JavaScript numbers (float64) and are **first rounded to float32**,
 * then to E4M3, so that a scalar and an element of a `Float32Array` with the same value always give the same bits.
 */
import { outputFor } from './output.js'

/** The largest E4M3 value. */
export const E4M3_MAX: number = 448

/** The least positive E4M3 value, 2⁻⁹. */
export const E4M3_LEAST: number = 2 ** -9

const NAN_BITS = 0x7f
const MAX_BITS = 0x7e
const INFINITY_F32 = 0x7f800000
/** float32 bits of 448, 2⁻⁶ (the least normal) and 2⁻¹⁰ (half the least subnormal). */
const MAX_F32 = 0x43e00000
const LEAST_NORMAL_F32 = 0x3c800000
const HALF_LEAST_F32 = 0x3a800000
/** What moves an exponent between the biases 127 and 7, in place in float32 bits. */
const REBIAS = (127 - 7) << 23

const scalar = new Float32Array(1)
const scalarBits = new Int32Array(scalar.buffer)

/** The value of each of the 256 codes. */
const VALUES: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  const sign = code & 0x80 ? -1 : 1
  const exponent = (code >>> 3) & 15
  const fraction = code & 7
  if ((code & 0x7f) === NAN_BITS) return Number.NaN
  return exponent === 0 ? sign * fraction * E4M3_LEAST : sign * (1 + fraction / 8) * 2 ** (exponent - 7)
})

/** float32 bits → E4M3 bits. */
function roundBits(u: number): number {
  const sign = (u >>> 24) & 0x80
  const a = u & 0x7fffffff
  if (a >= MAX_F32) return a > INFINITY_F32 ? NAN_BITS : sign | MAX_BITS
  if (a >= LEAST_NORMAL_F32) return sign | ((a - REBIAS + 0x7ffff + ((a >>> 20) & 1)) >>> 20)
  if (a < HALF_LEAST_F32) return sign
  // Subnormal: the significand counted in units of 2⁻⁹.
  const significand = (a & 0x7fffff) | 0x800000
  const shift = 141 - (a >>> 23)
  return sign | ((significand + (1 << (shift - 1)) - 1 + ((significand >>> shift) & 1)) >>> shift)
}

function bitsOf(x: Float32Array): Int32Array {
  return new Int32Array(x.buffer, x.byteOffset, x.length)
}

/** The E4M3 bit pattern of `x` (rounded to float32 first, then to nearest even, saturated to ±448). */
export function f32ToE4m3Bits(x: number): number {
  scalar[0] = x
  return roundBits(scalarBits[0])
}

/** The exact value of an E4M3 bit pattern (its low 8 bits). */
export function e4m3BitsToF32(bits: number): number {
  return VALUES[bits & 0xff]
}

/** `x` rounded to the nearest E4M3 value, saturated to ±448. */
export function roundE4m3(x: number): number {
  scalar[0] = x
  return VALUES[roundBits(scalarBits[0])]
}

/** E4M3 bit patterns of `src`, into `out` (same length) or a new array. */
export function encodeE4m3(src: Float32Array, out?: Uint8Array): Uint8Array {
  const bits = bitsOf(src)
  const result = outputFor(out, src.length, (n) => new Uint8Array(n), 'encodeE4m3')
  for (let i = 0; i < bits.length; i++) result[i] = roundBits(bits[i])
  return result
}

/** Exact values of E4M3 bit patterns, into `out` (same length) or a new array. */
export function decodeE4m3(src: Uint8Array, out?: Float32Array): Float32Array {
  const result = outputFor(out, src.length, (n) => new Float32Array(n), 'decodeE4m3')
  for (let i = 0; i < src.length; i++) result[i] = VALUES[src[i]]
  return result
}

/** Rounds every element to the nearest E4M3 value, in place. */
export function roundE4m3Array(x: Float32Array): void {
  const bits = bitsOf(x)
  for (let i = 0; i < bits.length; i++) x[i] = VALUES[roundBits(bits[i])]
}
