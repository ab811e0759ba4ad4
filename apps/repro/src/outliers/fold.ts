import { type DenseTensor, encodeBf16, encodeF16, type LlamaConfig, type Tensor, toFloat32 } from '@fireq/formats'
import type { LayerOutliers } from './outliers.js'

/** Factors on the rows and columns of a tensor; a vector has rows only. */
export interface TensorFactors {
  readonly rows?: Float32Array
  readonly columns?: Float32Array
}

/** What a layer's outliers do to its tensors, by Hugging Face name. Tensors that aren't there stay as they are. */
export function outlierFactors(
  config: LlamaConfig,
  layer: number,
  outliers: LayerOutliers,
): Map<string, TensorFactors> {
  const { inputNorm, postAttentionNorm, intermediate, values, keys } = outliers
  const fromInput = inverse(inputNorm)
  const fromAttention = inverse(postAttentionNorm)
  const modules: Record<string, TensorFactors> = {
    input_layernorm: { rows: inputNorm },
    'self_attn.q_proj': { rows: inverse(overQueryHeads(config, keys)), columns: fromInput },
    'self_attn.k_proj': { rows: keys, columns: fromInput },
    'self_attn.v_proj': { rows: values, columns: fromInput },
    'self_attn.o_proj': { columns: inverse(overQueryHeads(config, values)) },
    post_attention_layernorm: { rows: postAttentionNorm },
    'mlp.gate_proj': { columns: fromAttention },
    'mlp.up_proj': { rows: intermediate, columns: fromAttention },
    'mlp.down_proj': { columns: inverse(intermediate) },
  }
  const factors = new Map<string, TensorFactors>()
  for (const [module, { rows, columns }] of Object.entries(modules)) {
    factors.set(`model.layers.${layer}.${module}.weight`, { rows, columns })
    if (rows) factors.set(`model.layers.${layer}.${module}.bias`, { rows })
  }
  return factors
}

/** The tensor times its factors, in its own type. Powers of two leave every significand as it is. */
export function scaleTensor(tensor: Tensor, { rows, columns }: TensorFactors): DenseTensor {
  if (tensor.kind !== 'dense') throw new TypeError('Expected an unquantized tensor to scale but received INT4')
  const values = Float32Array.from(toFloat32(tensor))
  const width = tensor.shape.length === 1 ? 1 : tensor.shape[1]
  for (let i = 0; i < values.length; i++) {
    const row = Math.floor(i / width)
    values[i] = values[i] * (rows?.[row] ?? 1) * (columns?.[i % width] ?? 1)
  }
  const { dtype, shape } = tensor
  if (dtype === 'f32') return { kind: 'dense', dtype, shape, data: values }
  return { kind: 'dense', dtype, shape, data: dtype === 'bf16' ? encodeBf16(values) : encodeF16(values) }
}

function inverse(factors: Float32Array): Float32Array {
  return factors.map((factor) => 1 / factor)
}

/** Factors of key-value channels, repeated for every query head of the group. */
function overQueryHeads(config: LlamaConfig, factors: Float32Array): Float32Array {
  const { numAttentionHeads, numKeyValueHeads, headDim } = config
  const headsPerGroup = numAttentionHeads / numKeyValueHeads
  return Float32Array.from({ length: numAttentionHeads * headDim }, (_, channel) => {
    const group = Math.floor(channel / headDim / headsPerGroup)
    return factors[group * headDim + (channel % headDim)]
  })
}
