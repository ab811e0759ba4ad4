import { type LlamaConfig, type ModelSource, modelTensors } from '@fireq/formats'
import { kvBytesPerToken } from '@fireq/kernels'
import { modelFamily, planFor } from '@fireq/model'
import type { Recipe } from '@fireq/quantize'
import { weightChoice } from '@fireq/quantize'

const SCALE_BITS = { e4m3: 8, bf16: 16 } as const

/** Bits per weight of the decoder layers' linears, the group scales in their own type included. */
export function bitsPerWeight(config: LlamaConfig, recipe: Recipe): number {
  let [bits, weights] = [0, 0]
  for (const { name, shape, quantizable } of modelTensors(config).flatMap((group) => group.tensors)) {
    if (!quantizable) continue
    const values = shape[0] * shape[1]
    const choice = weightChoice(recipe, name)
    bits += values * (choice === 'skip' ? 16 : 4 + SCALE_BITS[choice.scale] / choice.groupSize)
    weights += values
  }
  return bits / weights
}

/** Bits per cached value, scales included, as a checkpoint's own plan stores keys and values. */
export function kvBits(source: ModelSource): number {
  const { config } = source
  const { kv } = planFor(source, modelFamily(config.modelType).layerLinears)
  const { numKeyValueHeads, headDim } = config
  return (
    (kvBytesPerToken({ numLayers: 1, numKeyValueHeads, headDim, format: kv }) * 8) / (2 * numKeyValueHeads * headDim)
  )
}
