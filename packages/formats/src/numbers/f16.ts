/**
 * FP16 (IEEE 754 binary16): 1 sign, 5 exponent and 10 fraction bits; subnormals are multiples of 2⁻²⁴.
 *
 * Rounding is to nearest, ties to even; 65520 and above becomes infinity, as IEEE 754 has it. Every NaN becomes 0x7E00.
 * Scalars are JavaScript numbers (float64) and are **first rounded to float32**, then to FP16, so that a scalar and an
 * element of a `Float32Array` with the same value always give the same bits.
 */
import { outputFor } from './output.js'

const NAN_BITS = 0x7e00
const INFINITY_BITS = 0x7c00
const INFINITY_F32 = 0x7f800000
/** float32 bits of 2¹⁶, 2⁻¹⁴ (the least normal) and 2⁻²⁵ (half the least subnormal). */
const TOO_LARGE_F32 = 0x47800000
const LEAST_NORMAL_F32 = 0x38800000
const HALF_LEAST_F32 = 0x33000000
/** What moves an exponent between the biases 127 and 15, in place in float32 bits. */
const REBIAS = (127 - 15) << 23
const LEAST = 2 ** -24

const scalar = new Float32Array(1)
const scalarBits = new Int32Array(scalar.buffer)

/** float32 bits → FP16 bits. */
function roundBits(u: number): number {
  const sign = (u >>> 16) & 0x8000
  const a = u & 0x7fffffff
  if (a >= TOO_LARGE_F32) return a > INFINITY_F32 ? NAN_BITS : sign | INFINITY_BITS
  // The carry of rounding runs into the exponent, and past the largest finite number into infinity, as it should.
  if (a >= LEAST_NORMAL_F32) return sign | ((a - REBIAS + 0xfff + ((a >>> 13) & 1)) >>> 13)
  if (a < HALF_LEAST_F32) return sign
  // Subnormal: the significand counted in units of 2⁻²⁴.
  const significand = (a & 0x7fffff) | 0x800000
  const shift = 126 - (a >>> 23)
  return sign | ((significand + (1 << (shift - 1)) - 1 + ((significand >>> shift) & 1)) >>> shift)
}

/** FP16 bits → float32 value. */
function f16Value(h: number): number {
  const magnitude = h & 0x7fff
  if (magnitude < 0x400) return h & 0x8000 ? -magnitude * LEAST : magnitude * LEAST
  if (magnitude > INFINITY_BITS) return Number.NaN
  const exponentAndFraction = magnitude === INFINITY_BITS ? INFINITY_F32 : (magnitude << 13) + REBIAS
  scalarBits[0] = ((h & 0x8000) << 16) | exponentAndFraction
  return scalar[0]
}

function bitsOf(x: Float32Array): Int32Array {
  return new Int32Array(x.buffer, x.byteOffset, x.length)
}

/** The FP16 bit pattern of `x` (rounded to float32 first, then to nearest even). */
export function f32ToF16Bits(x: number): number {
  scalar[0] = x
  return roundBits(scalarBits[0])
}

/** The exact value of an FP16 bit pattern (its low 16 bits). */
export function f16BitsToF32(bits: number): number {
  return f16Value(bits)
}

/** `x` rounded to the nearest FP16 value. */
export function roundF16(x: number): number {
  return f16Value(f32ToF16Bits(x))
}

/** FP16 bit patterns of `src`, into `out` (same length) or a new array. */
export function encodeF16(src: Float32Array, out?: Uint16Array): Uint16Array {
  const bits = bitsOf(src)
  const result = outputFor(out, src.length, (n) => new Uint16Array(n), 'encodeF16')
  for (let i = 0; i < bits.length; i++) result[i] = roundBits(bits[i])
  return result
}

/** Exact values of FP16 bit patterns, into `out` (same length) or a new array. */
export function decodeF16(src: Uint16Array, out?: Float32Array): Float32Array {
  const result = outputFor(out, src.length, (n) => new Float32Array(n), 'decodeF16')
  for (let i = 0; i < src.length; i++) result[i] = f16Value(src[i])
  return result
}

/** Rounds every element to the nearest FP16 value, in place. */
export function roundF16Array(x: Float32Array): void {
  const bits = bitsOf(x)
  for (let i = 0; i < bits.length; i++) x[i] = f16Value(roundBits(bits[i]))
}
