import { bf16BitsToF32, f32ToBf16Bits } from '../numbers/bf16.js'
import { f32ToE4m3Bits, roundE4m3 } from '../numbers/e4m3.js'
import type { Int4Tensor, ScaleArray, ScaleDType } from '../tensor.js'
import { checkGroups, checkInt4Tensor } from './check.js'
import { decodeScales } from './scale-array.js'
import { MAX_TENSOR_SCALE_EXPONENT } from './tensor-scale.js'

/**
 * The codes as compressed-tensors' `weight_packed`: int32 [N, K/8], code + 8 of element i of a word at its bits 4i. On a
 * little-endian machine these are the same bytes, so the result shares the tensor's memory where its alignment allows.
 * @throws RangeError where K isn't a multiple of 8
 */
export function toWeightPacked(t: Int4Tensor): Int32Array {
  checkInt4Tensor(t)
  if (t.shape[1] % 8 !== 0) {
    throw new RangeError(`Expected K to be a multiple of 8 for weight_packed but received ${t.shape[1]}`)
  }
  const bytes = t.codes.byteOffset % 4 === 0 ? t.codes : t.codes.slice()
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)
}

/**
 * σ·channelScale as compressed-tensors' `weight_scale`: BF16 [N, K/groupSize].
 * @throws RangeError naming the first product that BF16 doesn't hold exactly
 */
export function foldedScaleBf16(t: Int4Tensor): Uint16Array {
  checkInt4Tensor(t)
  const scales = decodeScales(t.groupScale)
  const groups = t.shape[1] / t.groupSize
  const folded = new Uint16Array(scales.length)
  for (let g = 0; g < scales.length; g++) {
    const row = Math.floor(g / groups)
    const product = scales[g] * (t.channelScale ? t.channelScale[row] : 1)
    folded[g] = f32ToBf16Bits(product)
    if (bf16BitsToF32(folded[g]) !== product) {
      throw new RangeError(
        `Expected a scale that BF16 holds exactly at row ${row}, group ${g % groups} but received ${product}`,
      )
    }
  }
  return folded
}

export interface CompressedWeights {
  /** int32 [N, K/8]. */
  readonly weightPacked: Int32Array
  /** BF16 bits [N, K/groupSize]: σ with the tensor scale folded in. */
  readonly weightScale: Uint16Array
  /** [N, K]. */
  readonly shape: readonly [number, number]
  readonly groupSize: number
  /** The i of a tensor scale 2^i to take out of the scales again. Default 0. */
  readonly tensorScaleExponent?: number
  /** What the scales become once the tensor scale is out. Default bf16. */
  readonly scaleDType?: ScaleDType
  readonly lookupRounding?: boolean
}

/**
 * The INT4 tensor of compressed-tensors' arrays; the inverse of {@link toWeightPacked} and {@link foldedScaleBf16}. The
 * codes share the memory of `weightPacked`.
 * @throws RangeError on sizes that don't fit, on a scale that isn't finite or that `scaleDType` doesn't hold exactly
 */
export function fromCompressedTensors(c: CompressedWeights): Int4Tensor {
  const { weightPacked, weightScale, shape, groupSize, tensorScaleExponent: exponent = 0, scaleDType = 'bf16' } = c
  if (!Number.isInteger(exponent) || exponent < 0 || exponent > MAX_TENSOR_SCALE_EXPONENT) {
    throw new RangeError(
      `Expected an integer from 0 to ${MAX_TENSOR_SCALE_EXPONENT} for the tensor scale's exponent but received ${exponent}`,
    )
  }
  checkGroups(shape, groupSize)
  const [N, K] = shape
  const t: Int4Tensor = {
    kind: 'int4',
    shape: [N, K],
    groupSize,
    codes: new Uint8Array(weightPacked.buffer, weightPacked.byteOffset, weightPacked.byteLength),
    groupScale: unfoldedScales(weightScale, K / groupSize, 2 ** exponent, scaleDType),
    ...(exponent > 0 && { channelScale: new Float32Array(N).fill(2 ** -exponent) }),
    ...(c.lookupRounding && { lookupRounding: true }),
  }
  checkInt4Tensor(t, 'compressed tensor')
  return t
}

function unfoldedScales(weightScale: Uint16Array, groups: number, factor: number, dtype: ScaleDType): ScaleArray {
  const values = Float32Array.from(weightScale, (bits) => bf16BitsToF32(bits) * factor)
  values.forEach((value, g) => {
    const held = dtype === 'e4m3' ? roundE4m3(value) : value
    if (!Number.isFinite(value) || held !== value) {
      throw new RangeError(
        `Expected a finite scale that ${dtype} holds exactly at row ${Math.floor(g / groups)}, group ${g % groups} but received ${value}`,
      )
    }
  })
  if (dtype === 'f32') return { dtype, data: values }
  if (dtype === 'bf16') return { dtype, data: Uint16Array.from(values, f32ToBf16Bits) }
  return { dtype, data: Uint8Array.from(values, f32ToE4m3Bits) }
}
