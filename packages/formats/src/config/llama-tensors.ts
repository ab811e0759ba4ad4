import type { LlamaConfig } from './llama-config.js'

/** A tensor that a config implies. */
export interface ModelTensor {
  /** Hugging Face's name. */
  readonly name: string
  /** [N, K] for a matrix. */
  readonly shape: readonly number[]
  /** The weight of a linear layer that may be stored as INT4. */
  readonly quantizable: boolean
}

/** Tensors that are read, worked on and written together: the embedding, a layer, or what follows the last layer. */
export interface ModelTensorGroup {
  /** `embed`, `layer-0` …, `head`. */
  readonly key: string
  readonly tensors: readonly ModelTensor[]
}

/** Every tensor of a Llama, in the order of the forward pass. A tied model has no `lm_head.weight`. */
export function llamaTensors(config: LlamaConfig): ModelTensorGroup[] {
  const { hiddenSize, vocabSize, numHiddenLayers, tieWordEmbeddings } = config
  const layers = Array.from({ length: numHiddenLayers }, (_, i) => ({
    key: `layer-${i}`,
    tensors: layerTensors(config, `model.layers.${i}`),
  }))
  const head = tieWordEmbeddings ? [] : [plain('lm_head.weight', [vocabSize, hiddenSize])]
  return [
    { key: 'embed', tensors: [plain('model.embed_tokens.weight', [vocabSize, hiddenSize])] },
    ...layers,
    { key: 'head', tensors: [plain('model.norm.weight', [hiddenSize]), ...head] },
  ]
}

function layerTensors(config: LlamaConfig, layer: string): ModelTensor[] {
  const { hiddenSize, intermediateSize, headDim, attentionBias, mlpBias } = config
  const queries = config.numAttentionHeads * headDim
  const keys = config.numKeyValueHeads * headDim
  const attention = (name: string, N: number, K: number) =>
    linear(`${layer}.self_attn.${name}_proj`, N, K, attentionBias)
  const mlp = (name: string, N: number, K: number) => linear(`${layer}.mlp.${name}_proj`, N, K, mlpBias)
  return [
    plain(`${layer}.input_layernorm.weight`, [hiddenSize]),
    ...attention('q', queries, hiddenSize),
    ...attention('k', keys, hiddenSize),
    ...attention('v', keys, hiddenSize),
    ...attention('o', hiddenSize, queries),
    plain(`${layer}.post_attention_layernorm.weight`, [hiddenSize]),
    ...mlp('gate', intermediateSize, hiddenSize),
    ...mlp('up', intermediateSize, hiddenSize),
    ...mlp('down', hiddenSize, intermediateSize),
  ]
}

function linear(name: string, N: number, K: number, bias: boolean): ModelTensor[] {
  const weight = { name: `${name}.weight`, shape: [N, K], quantizable: true }
  return bias ? [weight, plain(`${name}.bias`, [N])] : [weight]
}

function plain(name: string, shape: number[]): ModelTensor {
  return { name, shape, quantizable: false }
}
