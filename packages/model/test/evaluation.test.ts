import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  evaluate,
  klDivergence,
  klOfLogits,
  LanguageModel,
  type LogitsChunk,
  logSumExp,
  perplexity,
  type ScoredModel,
  tokenWindows,
} from '../src/index.js'
import { backends } from './support/backends.js'
import { randomIds, randomSource } from './support/memory-source.js'

/** A model whose logits follow from the last token alone, handed out in chunks of 3 rows. */
function tableModel(table: readonly (readonly number[])[]): ScoredModel & { closed: number } {
  const model = {
    config: { vocabSize: table.length },
    closed: 0,
    async *streamLogits(ids: ArrayLike<number>, { rows }: { readonly rows?: readonly number[] } = {}) {
      try {
        for (let i = 0; i < rows!.length; i += 3) {
          const chunk = rows!.slice(i, i + 3)
          yield { rows: chunk, logits: Float32Array.from(chunk.flatMap((row) => [...table[ids[row]!]!])) }
        }
      } finally {
        model.closed++
      }
    },
  }
  return model
}

const UNIFORM = tableModel([0, 1, 2, 3].map(() => [7, 7, 7, 7]))
/** Each token is followed by the next one with probability e/(e + 3). */
const CYCLE = tableModel([0, 1, 2, 3].map((i) => [0, 1, 2, 3].map((j) => (j === (i + 1) % 4 ? 1 : 0))))
const WINDOWS = tokenWindows([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2], 5)

describe('tokenWindows', () => {
  test('cuts the stream without overlap and drops the remainder', () => {
    expect(WINDOWS.map((w) => [...w])).toEqual([
      [0, 1, 2, 3, 0],
      [1, 2, 3, 0, 1],
    ])
    fc.assert(
      fc.property(
        fc.array(fc.nat(99), { minLength: 2, maxLength: 60 }),
        fc.integer({ min: 2, max: 20 }),
        (ids, size) => {
          if (ids.length < size) return
          const windows = tokenWindows(ids, size)
          expect(windows.flatMap((w) => [...w])).toEqual(ids.slice(0, Math.floor(ids.length / size) * size))
        },
      ),
    )
  })

  test('refuses a stream shorter than a window, and a window that predicts nothing', () => {
    expect(() => tokenWindows([1, 2, 3], 4)).toThrow('Expected at least 4 tokens for a window but received 3')
    expect(() => tokenWindows([1, 2, 3], 1)).toThrow('at least 2')
  })
})

describe('log-softmax', () => {
  test('is right where exp would overflow', () => {
    expect(logSumExp(Float32Array.of(1000, 1000))).toBeCloseTo(1000 + Math.LN2, 12)
    expect(logSumExp(Float32Array.of(-1000, -1000, -1000, -1000))).toBeCloseTo(-1000 + 2 * Math.LN2, 12)
  })

  test('KL of two coins', () => {
    const coin = (p: number): Float32Array => Float32Array.of(Math.log(p), Math.log(1 - p))
    expect(klOfLogits(coin(0.5), coin(0.9))).toBeCloseTo(0.5 * Math.log(0.5 / 0.9) + 0.5 * Math.log(0.5 / 0.1), 6)
    expect(klOfLogits(Float32Array.of(0, -Infinity), coin(0.25))).toBeCloseTo(Math.log(4), 6)
  })
})

describe('evaluate', () => {
  test('perplexity of a model that knows nothing is its vocabulary, of one that knows more is less', async () => {
    expect(await evaluate(UNIFORM, WINDOWS)).toEqual({ windows: 2, tokens: 8, perplexity: expect.closeTo(4, 10) })
    expect(await perplexity(CYCLE, WINDOWS)).toBeCloseTo((Math.E + 3) / Math.E, 6)
  })

  test('compares with a baseline in one pass', async () => {
    const p = Math.E / (Math.E + 3)
    const rest = (1 - p) / 3
    const kl = p * Math.log(p * 4) + 3 * rest * Math.log(rest * 4)
    const result = await evaluate(UNIFORM, WINDOWS, { baseline: CYCLE })
    expect(result.perplexity).toBeCloseTo(4, 10)
    expect(result.baselinePerplexity).toBeCloseTo(1 / p, 6)
    expect(result.klDivergence).toBeCloseTo(kl, 6)
    // UNIFORM's first of equals is 0: CYCLE says so after a 3, which is twice among the predicting tokens.
    expect(result.top1Agreement).toBe(2 / 8)
    expect(await klDivergence(CYCLE, CYCLE, WINDOWS)).toBe(0)
  })

  test('tells how far it is', async () => {
    const progress: unknown[] = []
    await evaluate(UNIFORM, WINDOWS, { onProgress: (p) => progress.push(p) })
    expect(progress).toEqual([1, 2].map((done) => ({ done, total: 2, nll: expect.closeTo(Math.log(4), 10) })))
  })

  test('closes both streams when it ends or fails', async () => {
    const [model, baseline] = [
      tableModel([
        [0, 1],
        [1, 0],
      ]),
      tableModel([
        [0, 1],
        [1, 0],
      ]),
    ]
    await evaluate(model, [Int32Array.of(0, 1, 0)], { baseline })
    expect([model.closed, baseline.closed]).toEqual([1, 1])
    const broken = { config: { vocabSize: 2 }, streamLogits: () => failing() }
    await expect(evaluate(broken, [Int32Array.of(0, 1, 0)], { baseline })).rejects.toThrow('broken')
    await expect(evaluate(baseline, [Int32Array.of(0, 1, 0)], { baseline: broken })).rejects.toThrow('broken')
    expect(baseline.closed).toBe(3)
  })

  test('refuses what cannot be compared', async () => {
    await expect(evaluate(UNIFORM, [])).rejects.toThrow('at least one window')
    await expect(evaluate(UNIFORM, [Int32Array.of(1)])).rejects.toThrow('window 0 has 1')
    await expect(klDivergence(UNIFORM, tableModel([[0]]), WINDOWS)).rejects.toThrow(
      'vocabulary of 4 but received one of 1',
    )
  })

  test('can be aborted, and leaves the pools whole', async () => {
    using model = await LanguageModel.load(randomSource(), backends[0]!.backend, { chunkTokens: 4 })
    using baseline = await LanguageModel.load(randomSource({}, 2), backends[0]!.backend, { chunkTokens: 4 })
    const windows = tokenWindows(randomIds(60, 40, 1), 20)
    const controller = new AbortController()
    const onProgress = (): void => controller.abort(new Error('stop'))
    await expect(evaluate(model, windows, { baseline, signal: controller.signal, onProgress })).rejects.toThrow('stop')
    for (const { pool } of [model, baseline]) {
      pool.checkIntegrity()
      expect(pool.freePages).toBe(pool.pages)
    }
  })
})

async function* failing(): AsyncGenerator<LogitsChunk, void, void> {
  yield { rows: [0], logits: Float32Array.of(0, 1) }
  throw new Error('broken')
}
