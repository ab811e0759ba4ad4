import type { LlamaConfig } from '@fireq/formats'
import { seededUniform } from '@fireq/model'

/** How many outliers, and how large. Factors are powers of two: multiplying BF16 weights by them rounds nothing. */
export interface OutlierSettings {
  readonly seed: number
  /** Share of the channels of each norm, of the intermediate and of the values that become outliers; at least one. */
  readonly channelShare: number
  /** log₂ of their factors, drawn evenly from this range, both ends included. */
  readonly channelExponents: readonly [number, number]
  /** Key pairs of each key-value head that become outliers. */
  readonly keyPairs: number
  readonly keyExponents: readonly [number, number]
}

export const defaultOutliers: OutlierSettings = {
  seed: 1,
  channelShare: 0.02,
  channelExponents: [3, 5],
  keyPairs: 3,
  keyExponents: [2, 4],
}

/**
 * What the activations of one layer are multiplied by, channel by channel; 1 almost everywhere. Whatever consumes a
 * channel is divided by the same, so the layer's function stays as it is.
 */
export interface LayerOutliers {
  /** [hiddenSize]: input norm × c; q, k and v columns ÷ c. */
  readonly inputNorm: Float32Array
  /** [hiddenSize]: post-attention norm × c; gate and up columns ÷ c. */
  readonly postAttentionNorm: Float32Array
  /** [intermediateSize]: up rows × c; down columns ÷ c. */
  readonly intermediate: Float32Array
  /** [numKeyValueHeads · headDim]: v rows × c; o columns of every query head of the group ÷ c. */
  readonly values: Float32Array
  /**
   * [numKeyValueHeads · headDim], equal on the two partners i and i + headDim/2 that RoPE rotates: k rows × c; q rows of
   * every query head of the group ÷ c.
   */
  readonly keys: Float32Array
}

/** Draws the outliers of every layer. Equal settings draw equal outliers. */
export function drawOutliers(config: LlamaConfig, settings: OutlierSettings): LayerOutliers[] {
  const uniform = seededUniform(settings.seed)
  const { hiddenSize, intermediateSize, numKeyValueHeads, headDim } = config
  const channels = (size: number): Float32Array => {
    const count = Math.max(1, Math.round(size * settings.channelShare))
    return drawFactors(size, count, settings.channelExponents, uniform)
  }
  return Array.from({ length: config.numHiddenLayers }, () => ({
    inputNorm: channels(hiddenSize),
    postAttentionNorm: channels(hiddenSize),
    intermediate: channels(intermediateSize),
    values: channels(numKeyValueHeads * headDim),
    keys: Float32Array.from(
      Array.from({ length: numKeyValueHeads }, () => {
        const pairs = drawFactors(headDim / 2, settings.keyPairs, settings.keyExponents, uniform)
        return [...pairs, ...pairs]
      }).flat(),
    ),
  }))
}

/** `size` factors, all 1 but `count` of them, which are random powers of two. */
function drawFactors(
  size: number,
  count: number,
  [least, most]: readonly [number, number],
  uniform: () => number,
): Float32Array {
  if (count > size)
    throw new RangeError(`Expected at most ${size} outliers among ${size} channels but received ${count}`)
  const factors = new Float32Array(size).fill(1)
  for (let drawn = 0; drawn < count; ) {
    const channel = Math.floor(uniform() * size)
    if (factors[channel] !== 1) continue
    factors[channel] = 2 ** (least + Math.floor(uniform() * (most - least + 1)))
    drawn++
  }
  return factors
}
