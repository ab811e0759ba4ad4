/**
 * vLLM's W4A8 path (`CompressedTensorsW4A8Fp8`, Hopper) doesn't use the BF16 scales of a checkpoint as they are: it factors
 * each row into FP8 group scales and one FP32 channel scale when it loads them. This file emulates that, and chooses scales
 * that survive it unchanged. With tensor parallelism along K (o and down projections) vLLM factors each shard's part of
 * a row alone, so that scales chosen for whole rows are only kept where the shard holds the row's largest.
 */
import { bf16BitsToF32, f32ToBf16Bits } from '../numbers/bf16.js'
import { E4M3_LEAST, E4M3_MAX, e4m3BitsToF32, f32ToE4m3Bits, roundE4m3 } from '../numbers/e4m3.js'

/** The least per-row factor, in float32 as vLLM has it. */
const LEAST_FACTOR = Math.fround(1 / (E4M3_MAX * 512))

/** Group scales are divided by 8 once more, so that 8·σ can't pass 448. */
const HEADROOM = 8
const LARGEST_MULTIPLE = E4M3_MAX / HEADROOM

export interface VllmScales {
  /** E4M3 bits [N, groups], as vLLM's kernel multiplies them with a code, rounding the product to E4M3. */
  readonly groupScale: Uint8Array
  /** [N] in float32, applied to the output. */
  readonly channelScale: Float32Array
  /** groupScale · channelScale, the σ in effect, [N, groups], rounded once to float32. */
  readonly effective: Float32Array
}

/**
 * What vLLM makes of BF16 scales at load: c = max(rowmax|σ|/448, 1/(448·512)); f = E4M3(E4M3(σ/c)/8); c ← 8c, in float32.
 * @param scaleBf16 BF16 bits [N, groups], finite
 */
export function vllmW4A8Load(scaleBf16: Uint16Array, N: number, groups: number): VllmScales {
  checkScaleCount(scaleBf16.length, N, groups)
  const groupScale = new Uint8Array(N * groups)
  const channelScale = new Float32Array(N)
  const effective = new Float32Array(N * groups)
  for (let row = 0; row < N; row++) {
    const scales = Float32Array.from(scaleBf16.subarray(row * groups, (row + 1) * groups), bf16BitsToF32)
    const factor = Math.max(Math.fround(rowMax(scales, row) / E4M3_MAX), LEAST_FACTOR)
    channelScale[row] = HEADROOM * factor
    for (let g = 0; g < groups; g++) {
      const code = f32ToE4m3Bits(roundE4m3(scales[g] / factor) / HEADROOM)
      groupScale[row * groups + g] = code
      effective[row * groups + g] = e4m3BitsToF32(code) * channelScale[row]
    }
  }
  return { groupScale, channelScale, effective }
}

/**
 * Rounds scales to σ[row, g] = c[row] · E4M3 such that vLLM's load keeps them: c has at most four significant bits, the
 * largest of a row is c·448 (so that vLLM finds this very c), and the others are 8c times an E4M3 value of 2⁻⁹…56. The
 * products have at most eight significant bits, so BF16 holds them exactly.
 *
 * A row whose largest scale is below 2⁻⁹ meets the floor of vLLM's factor, which isn't a short binary number: there
 * the result is the BF16 value nearest to what vLLM will use, which differs by at most 2⁻⁹ of it.
 *
 * @param scales [N, groups], finite and not 0, either sign
 * @returns BF16 bits [N, groups]
 */
export function vllmSafeScales(scales: Float32Array, N: number, groups: number): Uint16Array {
  checkScaleCount(scales.length, N, groups)
  const safe = new Uint16Array(N * groups)
  for (let row = 0; row < N; row++) {
    const rowScales = scales.subarray(row * groups, (row + 1) * groups)
    const max = rowMax(rowScales, row)
    const short = roundToFourBits(max / E4M3_MAX)
    const factor = HEADROOM * Math.max(short, LEAST_FACTOR)
    for (let g = 0; g < groups; g++) {
      const scale = rowScales[g]
      // The largest is pinned: rounding it could take the neighbour of 56, and vLLM would find another factor.
      const isLargest = short >= LEAST_FACTOR && Math.abs(scale) === max
      const multiple = isLargest ? Math.sign(scale) * LARGEST_MULTIPLE : groupMultiple(scale / factor)
      safe[row * groups + g] = f32ToBf16Bits(multiple * factor)
    }
  }
  return safe
}

/** The nearest E4M3 value of magnitude 2⁻⁹…56 with the sign of `multiple`. */
function groupMultiple(multiple: number): number {
  const magnitude = Math.min(Math.max(roundE4m3(Math.abs(multiple)), E4M3_LEAST), LARGEST_MULTIPLE)
  return multiple < 0 ? -magnitude : magnitude
}

/** The nearest number with a significand of four bits, for x ≥ 0. */
function roundToFourBits(x: number): number {
  if (x === 0) return 0
  const unit = 2 ** (Math.floor(Math.log2(x)) - 3)
  return Math.round(x / unit) * unit
}

function rowMax(scales: Float32Array, row: number): number {
  let max = 0
  for (let g = 0; g < scales.length; g++) {
    const magnitude = Math.abs(scales[g])
    if (!Number.isFinite(magnitude)) {
      throw new RangeError(`Expected finite scales but received ${scales[g]} at row ${row}, group ${g}`)
    }
    max = Math.max(max, magnitude)
  }
  return max
}

function checkScaleCount(length: number, N: number, groups: number): void {
  if (length !== N * groups) {
    throw new RangeError(`Expected ${N * groups} scales for ${N} rows of ${groups} groups but received ${length}`)
  }
}
