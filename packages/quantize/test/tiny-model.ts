import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createShardedSafetensors, encodeBf16, modelTensors, parseModelConfig } from '@fireq/formats'

/** A Llama of three layers, small enough for the reference backend. */
const tinyConfig = {
  model_type: 'llama',
  architectures: ['LlamaForCausalLM'],
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 32,
  vocab_size: 96,
  max_position_embeddings: 64,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  attention_bias: true,
  torch_dtype: 'bfloat16',
}

/** Writes a model directory with weights from a fixed formula. */
export async function writeTinyModel(dir: string, changes: Record<string, unknown> = {}): Promise<string> {
  const raw = { ...tinyConfig, ...changes }
  const tensors = modelTensors(parseModelConfig(raw, 'config.json')).flatMap((group) => group.tensors)
  const specs = tensors.map(({ name, shape }) => ({ name, dtype: 'bf16' as const, shape }))
  await using file = await createShardedSafetensors(dir, specs)
  for (const { name, shape } of tensors) {
    const size = shape.reduce((product, dim) => product * dim, 1)
    const phase = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7)
    const wave = (i: number) => Math.sin(phase + i * 1.7 + (i % 13) * phase)
    const value = shape.length === 1 ? (i: number) => 1 + 0.3 * wave(i) : (i: number) => 0.2 * wave(i) ** 3
    await file.write(name, encodeBf16(Float32Array.from({ length: size }, (_, i) => value(i))))
  }
  await file.finish()
  await writeFile(join(dir, 'config.json'), JSON.stringify(raw))
  return dir
}

/** A token stream for it. */
export function tinyTokens(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (i * 37 + (i >> 3) * 11) % 96)
}

/** Every part of FireQ, at the size of this model. */
export const tinyFireq = {
  name: 'tiny-fireq',
  weights: { groupSize: 32, scale: 'e4m3' },
  queries: 'e4m3',
  probabilities: 'e4m3',
  kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' },
  smoothing: {
    channelWise: { gateUp: { type: 2, constant: 0.05 }, down: { type: 2, constant: 0.05 } },
    valueMultiplier: 0.9,
    preRope: { alpha: 2 },
    postRope: { beta: 2, topK: 3 },
  },
  calibration: { windows: 3, length: 12, seed: 1 },
} as const
