import type { Int4Tensor, ScaleArray, ScaleDType } from '../tensor.js'
import { checkGroups, checkWeights } from './check.js'
import { decodeScales, encodeScales, roundScale } from './scale-array.js'
import { type GroupFormat, SCALE_SEARCHES, type ScaleSearch, type ScaleSearchName } from './search.js'
import { chooseTensorScale, MAX_TENSOR_SCALE_EXPONENT } from './tensor-scale.js'
import { vllmSafeScales } from './vllm.js'

export interface Int4Options {
  /** Elements along K that share a scale; even, divides K. */
  readonly groupSize: number
  /** The type of the group scales. */
  readonly scale: ScaleDType
  /**
   * Exponent i of the factor 2^i on the weights before their E4M3 scales are taken, undone by the channel scale 2^−i;
   * `auto` calls {@link chooseTensorScale}. Only with E4M3 scales. Default 0, no factor.
   */
  readonly tensorScale?: number | 'auto'
  /** Marks the result: its values are E4M3(code · σ). The codes don't depend on it. Default false. */
  readonly lookupRounding?: boolean
  /**
   * Moves the scales to the nearest that vLLM's load keeps as they are, {@link vllmSafeScales}. Only with BF16 scales.
   * Default false.
   */
  readonly vllmScales?: boolean
  /** How a group's scale is chosen. Default `absmax`. */
  readonly search?: ScaleSearchName | ScaleSearch
}

/** Adding and subtracting it rounds a small float64 to an integer, ties to even. */
const ROUNDER = 1.5 * 2 ** 52

/**
 * The code of one weight: clamp(rne(w/σ), −8, 7), the quotient rounded to float32 as float32 arithmetic gives it.
 * @param scale finite, not 0, either sign
 */
export function int4Code(weight: number, scale: number): number {
  const quotient = Math.min(Math.max(Math.fround(weight / scale), -8), 7)
  return quotient + ROUNDER - ROUNDER
}

/**
 * Quantizes a weight matrix to INT4 groups: one scale σ a group, rounded to its type first, then the codes from the
 * rounded σ (FireQ, arXiv 2505.20839).
 *
 * @param weights [N, K] row-major, finite
 * @throws RangeError naming what is wrong and where: a weight that isn't finite, a scale that its type can't hold
 */
export function quantizeInt4(
  weights: Float32Array,
  shape: readonly [number, number],
  options: Int4Options,
): Int4Tensor {
  const { groupSize, scale: scaleDType, lookupRounding = false, vllmScales = false } = options
  if (vllmScales && scaleDType !== 'bf16') {
    throw new RangeError(`Expected bf16 scales for vLLM but received ${scaleDType}`)
  }
  checkGroups(shape, groupSize)
  checkWeights(weights, shape)
  const exponent = tensorScaleExponent(weights, shape, options)
  const factor = 2 ** exponent
  const scaled = exponent === 0 ? weights : weights.map((w) => w * factor)
  const format = { scaleDType, lookupRounding, roundScale: (scale: number) => roundScale(scale, scaleDType) }
  const scales = searchScales(scaled, shape, groupSize, format, searchOf(options))
  const channelScale = exponent === 0 ? undefined : new Float32Array(shape[0]).fill(1 / factor)
  const groupScale: ScaleArray = vllmScales
    ? { dtype: 'bf16', data: vllmSafeScales(scales, shape[0], shape[1] / groupSize) }
    : encodeScales(scales, scaleDType)
  return quantizeInt4WithScales(weights, shape, groupSize, groupScale, {
    channelScale,
    lookupRounding,
  })
}

/**
 * Quantizes with scales that are given: code = clamp(rne(w/(σ·channelScale)), −8, 7).
 *
 * @param weights [N, K] row-major, finite
 * @param groupScale [N, K/groupSize], finite and not 0
 * @param factors `channelScale`: [N], finite and not 0
 */
export function quantizeInt4WithScales(
  weights: Float32Array,
  shape: readonly [number, number],
  groupSize: number,
  groupScale: ScaleArray,
  factors: { readonly channelScale?: Float32Array; readonly lookupRounding?: boolean } = {},
): Int4Tensor {
  checkGroups(shape, groupSize)
  checkWeights(weights, shape)
  const [N, K] = shape
  const { channelScale, lookupRounding } = factors
  const groups = K / groupSize
  if (groupScale.data.length !== N * groups) {
    throw new RangeError(`Expected ${N * groups} group scales but received ${groupScale.data.length}`)
  }
  if (channelScale && channelScale.length !== N) {
    throw new RangeError(`Expected ${N} channel scales but received ${channelScale.length}`)
  }
  const scales = decodeScales(groupScale)
  const codes = new Uint8Array((N * K) / 2)
  for (let g = 0; g < scales.length; g++) {
    const row = Math.floor(g / groups)
    const scale = channelScale ? scales[g] * channelScale[row] : scales[g]
    if (!Number.isFinite(scale) || scale === 0) {
      throw new RangeError(
        `Expected a finite scale other than 0 at row ${row}, group ${g % groups} but received ${scale}`,
      )
    }
    for (let i = g * groupSize; i < (g + 1) * groupSize; i += 2) {
      codes[i >>> 1] = (int4Code(weights[i], scale) + 8) | ((int4Code(weights[i + 1], scale) + 8) << 4)
    }
  }
  return {
    kind: 'int4',
    shape: [N, K],
    groupSize,
    codes,
    groupScale,
    ...(channelScale && { channelScale }),
    ...(lookupRounding && { lookupRounding }),
  }
}

/** The rounded scale of every group, with an error that names the group. */
function searchScales(
  weights: Float32Array,
  [N, K]: readonly [number, number],
  groupSize: number,
  format: GroupFormat,
  search: ScaleSearch,
): Float32Array {
  const groups = K / groupSize
  const scales = new Float32Array(N * groups)
  for (let g = 0; g < scales.length; g++) {
    try {
      scales[g] = format.roundScale(search(weights, g * groupSize, (g + 1) * groupSize, format))
    } catch (error) {
      const place = `row ${Math.floor(g / groups)}, group ${g % groups}`
      throw new RangeError(`${(error as Error).message} (${place})`, { cause: error })
    }
  }
  return scales
}

function searchOf({ search = 'absmax' }: Int4Options): ScaleSearch {
  if (typeof search === 'function') return search
  if (!Object.hasOwn(SCALE_SEARCHES, search)) {
    const names = Object.keys(SCALE_SEARCHES).join(', ')
    throw new RangeError(`Expected a scale search (${names}) but received ${search}`)
  }
  return SCALE_SEARCHES[search]
}

function tensorScaleExponent(
  weights: Float32Array,
  shape: readonly [number, number],
  { tensorScale = 0, scale, groupSize }: Int4Options,
): number {
  if (tensorScale !== 0 && scale !== 'e4m3') {
    throw new RangeError(`Expected no tensor scale with ${scale} scales but received ${tensorScale}`)
  }
  if (tensorScale === 'auto') return chooseTensorScale(weights, shape, groupSize)
  if (!Number.isInteger(tensorScale) || tensorScale < 0 || tensorScale > MAX_TENSOR_SCALE_EXPONENT) {
    throw new RangeError(
      `Expected an integer from 0 to ${MAX_TENSOR_SCALE_EXPONENT} for the tensor scale's exponent but received ${tensorScale}`,
    )
  }
  return tensorScale
}
