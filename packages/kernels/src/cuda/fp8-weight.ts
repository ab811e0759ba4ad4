import { type DenseTensor, f32ToE4m3Bits, toFloat32 } from '@fireq/formats'
import { BackendError } from '../errors.js'
import { quantizeGroups } from '../ops/quantize-fp8.js'

/** A weight in FP8 with a scale an output feature: element (n, k) is `E4M3(codes[n, k]) · channelScale[n]`. */
export interface Fp8Weight {
  readonly kind: 'e4m3'
  /** [N, K]. */
  readonly shape: readonly [number, number]
  /** E4M3 [N, K], without NaN. */
  readonly codes: Uint8Array
  /** [N]. */
  readonly channelScale: Float32Array
}

/** Rounds a matrix [N, K] to FP8: a row's scale is its largest magnitude / 448 (see the op `quantizeFp8`). */
export function quantizeFp8Weight(tensor: DenseTensor): Fp8Weight {
  const [n, k] = tensor.shape
  if (tensor.shape.length !== 2 || n === undefined || k === undefined) {
    throw new BackendError(`Expected a matrix to round to FP8 but received shape [${tensor.shape.join(', ')}]`)
  }
  const codes = new Uint8Array(n * k)
  const channelScale = new Float32Array(n)
  const rounded = new Float32Array(k)
  const values = toFloat32(tensor)
  for (let row = 0; row < n; row++) {
    quantizeGroups(values.subarray(row * k, (row + 1) * k), k, rounded, channelScale.subarray(row, row + 1))
    for (let i = 0; i < k; i++) codes[row * k + i] = f32ToE4m3Bits(rounded[i]!)
  }
  return { kind: 'e4m3', shape: [n, k], codes, channelScale }
}
