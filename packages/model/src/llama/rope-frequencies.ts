import type { LlamaConfig } from '@fireq/formats'

type RopeScaling = NonNullable<LlamaConfig['rope']['scaling']>

/**
 * Angle per position of each rotated pair, [headDim / 2]: θ^(−2i / headDim) (Su et al. 2021), stretched by
 * `config.rope.scaling` as Hugging Face's `linear` and `llama3` types do (Llama 3.1's frequency bands). Computed in
 * FP64, rounded once to FP32.
 */
export function ropeInverseFrequencies(config: Pick<LlamaConfig, 'headDim' | 'rope'>): Float32Array {
  const { headDim, rope } = config
  return Float32Array.from({ length: headDim / 2 }, (_, i) => scale(rope.theta ** ((-2 * i) / headDim), rope.scaling))
}

function scale(frequency: number, scaling: RopeScaling | undefined): number {
  if (scaling === undefined) return frequency
  if (scaling.type === 'linear') return frequency / scaling.factor
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling
  // How often the pair turns within the context the model was first trained on.
  const turns = (originalMaxPositionEmbeddings * frequency) / (2 * Math.PI)
  if (turns < lowFreqFactor) return frequency / factor
  if (turns > highFreqFactor) return frequency
  const smooth = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor)
  return ((1 - smooth) * frequency) / factor + smooth * frequency
}
