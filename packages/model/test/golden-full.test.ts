import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { openModel } from '@fireq/formats'
import { describe, expect, test } from 'vitest'
import {
  LanguageModel,
  type LlamaPlan,
  type LoadSource,
  loadTokenizer,
  perplexity,
  tokenWindows,
} from '../src/index.js'
import { fastBackend } from './support/backends.js'
import { golden } from './support/golden.js'
import { withConfig } from './support/memory-source.js'
import { STANDIN, testData } from './support/paths.js'

/** Minutes of work, and texts that a clone doesn't have: run with FIREQ_SLOW_TESTS=1. */
const novels = testData('data/british-fiction/british-fiction.txt.xz')
const wikitext = testData('data/wikitext-2-raw/wiki.test.raw')
const skip = process.env.FIREQ_SLOW_TESTS !== '1' || fastBackend === undefined || novels.missing || wikitext.missing

const HELD_OUT = 1_200_000
const PIECE = 100_000

/** Ids of a text in the pieces of 100,000 code points that the golden values were made of. */
async function encodeInPieces(text: string): Promise<Int32Array> {
  const tokenizer = await loadTokenizer(STANDIN)
  const characters = Array.from(text)
  const pieces: number[] = []
  for (let at = 0; at < characters.length; at += PIECE) {
    for (const id of tokenizer.encode(characters.slice(at, at + PIECE).join(''))) pieces.push(id)
  }
  return Int32Array.from(pieces)
}

async function measure(ids: Int32Array, window: number, change: (source: LoadSource) => LoadSource): Promise<number> {
  await using source = await openModel(STANDIN)
  const plan: Partial<LlamaPlan> = { compute: 'f32' }
  using model = await LanguageModel.load(change(source), fastBackend!, { plan })
  return await perplexity(model, tokenWindows(ids, window))
}

async function heldOutNovels(): Promise<Int32Array> {
  const text = execFileSync('xz', ['-dc', novels.path], { maxBuffer: 2 ** 28 }).toString('utf8')
  return await encodeInPieces(Array.from(text).slice(-HELD_OUT).join(''))
}

describe.skipIf(skip)('perplexities in full (FIREQ_SLOW_TESTS=1, a native backend, and the test data)', () => {
  test.each(Object.entries(golden.validation_ppl))(
    'held-out novels, windows of %s',
    async (window, { ppl, windows }) => {
      const ids = await heldOutNovels()
      expect(Math.floor(ids.length / Number(window))).toBe(windows)
      const measured = await measure(ids, Number(window), (source) => source)
      console.log(`held-out novels, windows of ${window}: perplexity ${measured}, golden ${ppl}`)
      expect(Math.abs(measured / ppl - 1)).toBeLessThan(1e-3)
    },
    3_600_000,
  )

  test('held-out novels, with Llama 3.1 RoPE scaling', async () => {
    const ids = await heldOutNovels()
    const { rope_parameters, validation_ppl_1024, windows } = golden.llama3_rope_scaling
    expect(Math.floor(ids.length / 1024)).toBe(windows)
    const scaling = {
      type: 'llama3',
      factor: rope_parameters.factor,
      lowFreqFactor: rope_parameters.low_freq_factor,
      highFreqFactor: rope_parameters.high_freq_factor,
      originalMaxPositionEmbeddings: rope_parameters.original_max_position_embeddings,
    } as const
    const measured = await measure(ids, 1024, (source) => withConfig(source, { rope: { theta: 10000, scaling } }))
    console.log(`held-out novels, Llama 3.1 RoPE scaling: perplexity ${measured}, golden ${validation_ppl_1024}`)
    expect(Math.abs(measured / validation_ppl_1024 - 1)).toBeLessThan(1e-3)
  }, 3_600_000)

  test('WikiText-2', async () => {
    const ids = await encodeInPieces(readFileSync(wikitext.path, 'utf8'))
    const { ppl, tokens } = golden.wikitext2_test_ppl_2048
    expect(ids).toHaveLength(tokens)
    const measured = await measure(ids, 2048, (source) => source)
    console.log(`WikiText-2: perplexity ${measured}, golden ${ppl}`)
    expect(Math.abs(measured / ppl - 1)).toBeLessThan(1e-3)
  }, 3_600_000)
})
