import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { klDivergence, LanguageModel, logSumExp, perplexity, tokenWindows } from '../src/index.js'
import { backends } from './support/backends.js'
import { golden, samples } from './support/golden.js'
import { STANDIN } from './support/paths.js'

/** Golden values are transformers' in float32, so the model runs in FP32 too, KV cache included. */
const plan = { compute: 'f32' } as const
const vocabSize = 4096
const prompts = golden.prompts
const row = (logits: Float32Array, i: number): Float32Array => logits.subarray(i * vocabSize, (i + 1) * vocabSize)

describe.each(backends)('the stand-in on $name', ({ name, backend }) => {
  let model: LanguageModel
  beforeAll(async () => {
    model = await LanguageModel.load(STANDIN, backend, { plan, kvTokens: 2048 })
  })
  afterAll(() => {
    model?.pool.checkIntegrity()
    model?.dispose()
  })

  test('token log-probabilities within 1e-3, all prompts in one batch', async () => {
    const entries = prompts.map(({ ids }) => ({ sequence: model.pool.open(), tokens: ids, outputs: 'all' as const }))
    const logits = await model.forward(entries)
    for (const { sequence } of entries) model.pool.close(sequence)
    let worst = 0
    prompts.forEach(({ ids, token_logprobs, last_logits_first16, last_logits_norm, top5 }, p) => {
      for (let i = 1; i < ids.length; i++) {
        const before = row(logits[p]!, i - 1)
        worst = Math.max(worst, Math.abs(before[ids[i]!]! - logSumExp(before) - token_logprobs[i]!))
      }
      const last = row(logits[p]!, ids.length - 1)
      for (const [i, v] of last_logits_first16.entries()) expect(last[i]).toBeCloseTo(v, 3)
      expect(Math.hypot(...last)).toBeCloseTo(last_logits_norm, 2)
      for (const [id, logProb] of top5) expect(last[id]! - logSumExp(last)).toBeCloseTo(logProb, 3)
    })
    console.log(`token log-probabilities: largest error ${worst.toExponential(1)} on ${name}`)
    expect(worst).toBeLessThan(1e-3)
  })

  test('perplexity of a prompt is that of its golden log-probabilities', async () => {
    const { ids, token_logprobs } = prompts[4]!
    const nll = -token_logprobs.slice(1).reduce<number>((sum, v) => sum + v!, 0)
    expect(await perplexity(model, [Int32Array.from(ids)])).toBeCloseTo(Math.exp(nll / (ids.length - 1)), 1)
  })

  // The reference backend takes seconds for what others do in an instant: it does the first prompt's start.
  const greedy = name === 'reference' ? prompts.slice(0, 1) : prompts
  test.each(greedy)('greedy continuation of “$text”', async ({ ids, greedy_ids }) => {
    const maxTokens = name === 'reference' ? 12 : greedy_ids.length - ids.length
    const generated: number[] = []
    for await (const id of model.generate(ids, { maxTokens })) generated.push(id)
    expect([...ids, ...generated]).toEqual(greedy_ids.slice(0, ids.length + maxTokens))
  })

  test('a KV cache in INT4 costs little, and one in BF16 less', async () => {
    const windows = [Int32Array.from(prompts[0]!.greedy_ids.slice(0, name === 'reference' ? 12 : 57))]
    const kl = async (kv: NonNullable<Parameters<typeof LanguageModel.load>[2]>['plan']): Promise<number> => {
      using changed = await LanguageModel.load(STANDIN, backend, { plan: { ...plan, ...kv }, kvTokens: 64 })
      return await klDivergence(changed, model, windows)
    }
    const bf16 = await kl({ kv: { dtype: 'bf16' } })
    const symmetric = await kl({ kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' } })
    const asymmetric = await kl({ kv: { dtype: 'int4', symmetric: false, scale: 'bf16' } })
    expect(bf16).toBeGreaterThan(0)
    expect(bf16).toBeLessThan(1e-3)
    expect(symmetric).toBeGreaterThan(bf16)
    expect(asymmetric).toBeGreaterThan(bf16)
    expect(Math.max(symmetric, asymmetric)).toBeLessThan(0.2)
  })

  describe.skipIf(name === 'reference')('in full (skipped on the reference backend: too slow)', () => {
    test('a long prompt can be aborted in the middle of a step', async () => {
      const prompt = samples().slice(0, 2000)
      using whole = await LanguageModel.load(STANDIN, backend, { plan, kvTokens: 2048, chunkTokens: 2048 })
      const controller = new AbortController()
      const next = whole.generate(prompt, { signal: controller.signal }).next()
      setTimeout(() => controller.abort(new Error('enough')), 30)
      await expect(next).rejects.toThrow('enough')
      whole.pool.checkIntegrity()
      expect(whole.pool.freePages).toBe(whole.pool.pages)
    })

    test('perplexity of the samples within 0.1 %', async () => {
      const { ppl, windows, tokens_per_window } = golden.samples_ppl
      const all = tokenWindows(samples(), tokens_per_window)
      expect(all).toHaveLength(windows)
      const measured = await perplexity(model, all)
      console.log(`samples: perplexity ${measured} on ${name}, golden ${ppl}`)
      expect(Math.abs(measured / ppl - 1)).toBeLessThan(1e-3)
    }, 300_000)
  })
})
