import { checkText } from '../logits.js'
import type { SteppingModel } from '../stepping.js'
import { checkGenerateOptions, type FinishReason, type GenerateOptions } from './options.js'
import { seededUniform } from './random.js'

/** See `LanguageModel.generate`. Long prompts are cut into chunks; the last chunk's step draws the first token. */
export async function* generateTokens(
  model: SteppingModel,
  prompt: ArrayLike<number>,
  options: GenerateOptions,
): AsyncGenerator<number, FinishReason, void> {
  checkGenerateOptions(options)
  checkText(prompt, model.contextLength)
  const { temperature = 0, topK = 0, topP = 1, signal } = options
  const { maxTokens = Infinity, stop = model.config.eosTokenIds, seed = Math.floor(Math.random() * 2 ** 32) } = options
  const uniform = seededUniform(seed)
  if (maxTokens === 0) return 'length'

  const sequence = model.pool.open()
  try {
    let pending = Int32Array.from(prompt)
    for (let count = 1; ; count++) {
      while (pending.length > model.chunkTokens) {
        const tokens = pending.subarray(0, model.chunkTokens)
        const sampling = { temperature, topK, topP, uniform: 0 }
        await model.sample([{ sequence, tokens, outputs: 'none', sampling }], { signal })
        pending = pending.subarray(model.chunkTokens)
      }
      const sampling = { temperature, topK, topP, uniform: uniform() }
      const [[token]] = (await model.sample([{ sequence, tokens: pending, sampling }], { signal })) as [Int32Array]
      if (stop.includes(token!)) return 'stop'
      yield token!
      if (count >= maxTokens || sequence.length >= model.contextLength) return 'length'
      pending = Int32Array.of(token!)
    }
  } finally {
    model.pool.close(sequence)
  }
}
