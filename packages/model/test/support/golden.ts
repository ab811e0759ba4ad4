import { readFileSync } from 'node:fs'
import { STANDIN } from './paths.js'

interface Golden {
  prompts: {
    text: string
    ids: number[]
    token_logprobs: (number | null)[]
    last_logits_first16: number[]
    last_logits_norm: number
    top5: [number, number][]
    greedy_ids: number[]
    greedy_text: string
  }[]
  samples_ppl: { ppl: number; windows: number; tokens_per_window: number }
  llama3_rope_scaling: {
    rope_parameters: {
      factor: number
      low_freq_factor: number
      high_freq_factor: number
      original_max_position_embeddings: number
    }
    validation_ppl_1024: number
    windows: number
    inv_freq: number[]
  }
  validation_ppl: Record<string, { ppl: number; windows: number }>
  wikitext2_test_ppl_2048: { ppl: number; windows: number; tokens: number }
}

/** What transformers computes in float32 from the stand-in's weights. */
export const golden: Golden = JSON.parse(readFileSync(`${STANDIN}golden.json`, 'utf8'))

/** The model's own samples: 64 windows of 1024 ids. */
export function samples(): Int32Array {
  const bytes = readFileSync(`${STANDIN}samples.bin`)
  return Int32Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i))
}
