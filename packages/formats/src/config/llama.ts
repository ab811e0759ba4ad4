import { z } from 'zod'
import { boolean, integer, number, oneOf, optional } from './fields.js'
import { mismatch, validate } from './json.js'
import type { LlamaConfig } from './llama-config.js'
import { parseRope } from './rope.js'

// Limits are far above any model, and low enough that a product of two stays an exact integer.
const size = integer(1, 2 ** 24)
const count = integer(1, 2 ** 16)
const tokenId = integer(0, 2 ** 24 - 1)
const jsonObject = z.record(z.string(), z.unknown(), { error: 'an object or null' })

const llamaSchema = z.looseObject(
  {
    model_type: oneOf('llama'),
    architectures: optional(z.tuple([oneOf('LlamaForCausalLM')], { error: '["LlamaForCausalLM"]' })),
    hidden_size: size,
    intermediate_size: size,
    num_hidden_layers: count,
    num_attention_heads: count,
    num_key_value_heads: optional(count),
    head_dim: optional(count),
    vocab_size: size,
    max_position_embeddings: integer(1, 2 ** 31 - 1),
    rms_norm_eps: number(1e-12, 1).default(1e-6),
    hidden_act: oneOf('silu').default('silu'),
    tie_word_embeddings: boolean().default(false),
    attention_bias: boolean().default(false),
    mlp_bias: boolean().default(false),
    rope_theta: optional(number(1, 1e15)),
    rope_scaling: optional(jsonObject),
    rope_parameters: optional(jsonObject),
    partial_rotary_factor: optional(oneOf(1)),
    sliding_window: oneOf(null).optional(),
    is_encoder_decoder: oneOf(false).optional(),
    bos_token_id: optional(tokenId),
    eos_token_id: optional(z.union([tokenId, z.array(tokenId)], { error: 'a token id or a list of them' })),
  },
  { error: 'an object' },
)

/**
 * Reads a Llama's `config.json`: Llama 2, 3, 3.1 and 3.2, in transformers' spelling until 4 (`rope_theta`,
 * `rope_scaling`) and since 5 (`rope_parameters`). A missing field gets the default that transformers gives it.
 * @param json the parsed file
 * @param where the file's name, for errors
 * @throws ConfigError naming the file and the first field that is wrong or isn't supported
 */
export function parseLlamaConfig(json: unknown, where: string): LlamaConfig {
  const raw = validate(llamaSchema, json, where)
  const { hidden_size: hiddenSize, num_attention_heads: heads, vocab_size: vocabSize } = raw
  if (hiddenSize % heads !== 0) {
    throw mismatch(`a divisor of hidden_size (${hiddenSize})`, 'num_attention_heads', where, heads)
  }
  const keyValueHeads = raw.num_key_value_heads ?? heads
  if (heads % keyValueHeads !== 0) {
    throw mismatch(`a divisor of num_attention_heads (${heads})`, 'num_key_value_heads', where, keyValueHeads)
  }
  const headDim = raw.head_dim ?? hiddenSize / heads
  if (headDim % 2 !== 0) throw mismatch('an even number', 'head_dim', where, headDim)

  const eosTokenIds = [raw.eos_token_id ?? []].flat()
  for (const id of eosTokenIds) {
    if (id >= vocabSize) throw mismatch(`a token id below vocab_size (${vocabSize})`, 'eos_token_id', where, id)
  }
  const bosTokenId = raw.bos_token_id
  if (bosTokenId !== undefined && bosTokenId >= vocabSize) {
    throw mismatch(`a token id below vocab_size (${vocabSize})`, 'bos_token_id', where, bosTokenId)
  }
  return {
    modelType: raw.model_type,
    hiddenSize,
    intermediateSize: raw.intermediate_size,
    numHiddenLayers: raw.num_hidden_layers,
    numAttentionHeads: heads,
    numKeyValueHeads: keyValueHeads,
    headDim,
    vocabSize,
    maxPositionEmbeddings: raw.max_position_embeddings,
    rmsNormEps: raw.rms_norm_eps,
    rope: parseRope(raw, where),
    tieWordEmbeddings: raw.tie_word_embeddings,
    attentionBias: raw.attention_bias,
    mlpBias: raw.mlp_bias,
    ...(bosTokenId !== undefined && { bosTokenId }),
    eosTokenIds,
  }
}
