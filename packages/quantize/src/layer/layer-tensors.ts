import { type Tensor, toFloat32 } from '@fireq/formats'
import type { LayerWeights, Matrix } from '@fireq/smoothing'

type MatrixKey = 'q' | 'k' | 'v' | 'o' | 'gate' | 'up' | 'down'
type NormKey = 'inputNorm' | 'postAttentionNorm'

/** Where Hugging Face keeps what smoothing names shortly, within `model.layers.{i}`. */
const MATRICES: Readonly<Record<MatrixKey, string>> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
}
const NORMS: Readonly<Record<NormKey, string>> = {
  inputNorm: 'input_layernorm',
  postAttentionNorm: 'post_attention_layernorm',
}

/** The weights of a layer in FP32, from its tensors by Hugging Face name. */
export function toLayerWeights(layer: number, tensors: ReadonlyMap<string, Tensor>): LayerWeights {
  const prefix = `model.layers.${layer}.`
  const vectors: Partial<Record<string, Float32Array>> = {}
  const matrices: Partial<Record<string, Matrix>> = {}
  for (const [key, module] of Object.entries(NORMS)) {
    vectors[key] = toFloat32(tensors.get(`${prefix}${module}.weight`)!)
  }
  for (const [key, module] of Object.entries(MATRICES)) {
    const tensor = tensors.get(`${prefix}${module}.weight`)!
    const [rows, columns] = tensor.shape as readonly [number, number]
    matrices[key] = { rows, columns, data: toFloat32(tensor) }
    const bias = tensors.get(`${prefix}${module}.bias`)
    if (bias) vectors[`${key}Bias`] = toFloat32(bias)
  }
  return { ...matrices, ...vectors } as unknown as LayerWeights
}

/** The values of every tensor of a layer by Hugging Face name: the inverse of {@link toLayerWeights}. */
export function fromLayerWeights(layer: number, weights: LayerWeights): Map<string, Float32Array> {
  const prefix = `model.layers.${layer}.`
  const values = new Map<string, Float32Array>()
  for (const [key, module] of Object.entries(NORMS)) values.set(`${prefix}${module}.weight`, weights[key as NormKey])
  for (const [key, module] of Object.entries(MATRICES)) {
    values.set(`${prefix}${module}.weight`, weights[key as MatrixKey].data)
    const bias = weights[`${key as MatrixKey}Bias`]
    if (bias) values.set(`${prefix}${module}.bias`, bias)
  }
  return values
}
