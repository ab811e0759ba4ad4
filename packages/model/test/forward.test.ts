import { describe, expect, test } from 'vitest'
import {
  assembleStep,
  buildLlama,
  feedsOf,
  KvPool,
  LanguageModel,
  type LlamaPlan,
  loadWeights,
  tapName,
} from '../src/index.js'
import { backends } from './support/backends.js'
import { expectClose, relativeError } from './support/compare.js'
import { golden } from './support/golden.js'
import { memorySource, randomIds, randomSource } from './support/memory-source.js'
import { naiveLlama } from './support/naive-llama.js'

const F32: LlamaPlan = {
  compute: 'f32',
  activations: 'none',
  queries: 'none',
  probabilities: 'f32',
  kv: { dtype: 'f32' },
}
/** Of the largest logit, for FP32 arithmetic in another order. */
const TOLERANCE = 2e-5
const ids = randomIds(21, 40, 7)

describe.each(backends)('the forward pass on $name', ({ backend }) => {
  test.each([
    ['untied', {}],
    ['tied', { tieWordEmbeddings: true }],
    ['with biases', { attentionBias: true, mlpBias: true }],
    ['with as many key-value heads as heads, headDim not hiddenSize / heads', { numKeyValueHeads: 4, headDim: 6 }],
    ['with one key-value head and another base', { numKeyValueHeads: 1, rope: { theta: 500 } }],
  ] as const)('%s is what the oracle computes', async (_, overrides) => {
    const source = randomSource(overrides)
    const { logits } = await naiveLlama(source, ids)
    using model = await LanguageModel.load(source, backend, { plan: F32, pageSize: 4 })
    expectClose(await model.logits(ids), logits.flat(), TOLERANCE)
    const rows = [0, 5, 20]
    expectClose(
      await model.logits(ids, { rows }),
      rows.flatMap((r) => logits[r]!),
      TOLERANCE,
    )
  })

  test('positions are stretched as the config says', async () => {
    const linear = randomSource({ rope: { theta: 500, scaling: { type: 'linear', factor: 4 } } })
    const divided = [0, 1, 2, 3].map((i) => 500 ** (-i / 4) / 4)
    const { low_freq_factor, high_freq_factor, ...rest } = golden.llama3_rope_scaling.rope_parameters
    const scaling = {
      type: 'llama3',
      factor: rest.factor,
      lowFreqFactor: low_freq_factor,
      highFreqFactor: high_freq_factor,
      originalMaxPositionEmbeddings: rest.original_max_position_embeddings,
    } as const
    const llama3 = randomSource({ headDim: 128, rope: { theta: 10000, scaling } })
    for (const [source, frequencies] of [
      [linear, divided],
      [llama3, golden.llama3_rope_scaling.inv_freq],
    ] as const) {
      const { logits } = await naiveLlama(source, ids, frequencies)
      using model = await LanguageModel.load(source, backend, { plan: F32 })
      expectClose(await model.logits(ids), logits.flat(), TOLERANCE)
      const unscaled = await naiveLlama(source, ids)
      expect(relativeError(unscaled.logits.flat(), logits.flat())).toBeGreaterThan(100 * TOLERANCE)
    }
  })

  test.each([
    ['FP32', F32],
    [
      'FireQ',
      {
        ...F32,
        activations: 'e4m3',
        queries: 'e4m3',
        probabilities: 'e4m3',
        kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' },
      },
    ],
  ] as const)('alone, in a batch, and prefilled in chunks: the same logits, %s', async (kind, plan) => {
    const source = randomSource()
    using model = await LanguageModel.load(source, backend, { plan, pageSize: 4, kvTokens: 512 })
    const alone = await model.logits(ids)
    // Where values are quantized on the way, a sum in another order may tip one over to the next code.
    const tolerance = kind === 'FP32' ? TOLERANCE : 0.05
    for (const chunkTokens of [1, 3, 4, 8, 20]) expectClose(await model.logits(ids, { chunkTokens }), alone, tolerance)

    const others = [3, 1, 17, 8, 4, 30].map((count, i) => randomIds(count, 40, 100 + i))
    const entries = [...others, ids, randomIds(5, 40, 3)].map((tokens) => ({
      sequence: model.pool.open(),
      tokens,
      outputs: 'all' as const,
    }))
    expectClose((await model.forward(entries))[others.length]!, alone, tolerance)
    for (const { sequence } of entries) model.pool.close(sequence)
    model.pool.checkIntegrity()
  })

  test.each([
    ['symmetric', true],
    ['asymmetric', false],
  ] as const)('with an INT4 KV cache, %s', async (_, symmetric) => {
    const source = randomSource()
    const { logits } = await naiveLlama(source, ids)
    const kv = { dtype: 'int4', symmetric, scale: 'bf16' } as const
    using model = await LanguageModel.load(source, backend, { plan: { ...F32, kv } })
    const error = relativeError(await model.logits(ids), logits.flat())
    expect(error).toBeGreaterThan(0.01)
    expect(error).toBeLessThan(0.25)
  })

  test('key scales change nothing where nothing is quantized', async () => {
    const source = randomSource()
    const keyScale = [1, 2].map((seed) => Float32Array.from(randomIds(16, 30, seed), (v) => (v - 14.5) / 10))
    using plain = await LanguageModel.load(source, backend, { plan: F32 })
    using scaled = await LanguageModel.load(source, backend, { plan: { ...F32, keyScale } })
    expectClose(await scaled.logits(ids), await plain.logits(ids), TOLERANCE)
  })

  test('BF16 between ops is close to FP32', async () => {
    const source = randomSource()
    using exact = await LanguageModel.load(source, backend, { plan: F32 })
    using rounded = await LanguageModel.load(source, backend)
    expect(rounded.plan).toMatchObject({ compute: 'bf16', kv: { dtype: 'bf16' } })
    const error = relativeError(await rounded.logits(ids), await exact.logits(ids))
    expect(error).toBeGreaterThan(1e-3)
    expect(error).toBeLessThan(0.03)
  })

  test('spans of layers, one after another, are the whole, and taps show what is inside', async () => {
    const source = randomSource()
    const { config } = source
    const oracle = await naiveLlama(source, ids)
    const spans = [
      buildLlama(config, F32, { layers: [0, 0], to: 'hidden' }),
      buildLlama(config, F32, { layers: [0, 1], from: 'hidden', to: 'hidden', taps: ['keys', 'scaledKeys'] }),
      buildLlama(config, F32, { layers: [1, 2], from: 'hidden', to: 'hidden', taps: ['keys'] }),
      buildLlama(config, F32, { layers: [2, 2], from: 'hidden', to: 'logits' }),
    ]
    let hidden = {}
    for (const [i, program] of spans.entries()) {
      using weights = await loadWeights([program], source, backend)
      using executable = await backend.compile(program, weights)
      const pool = new KvPool(8, 4)
      using kv = program.kv && backend.createKvCache(program.kv, pool)
      const { feeds } = assembleStep(pool, [{ sequence: pool.open(), tokens: ids, outputs: 'all' }])
      const results = await executable.run(feedsOf(program, { ...feeds, ...hidden }), { kv })
      const layer = oracle.layers[i - 1]
      if (i === 3) expectClose(results.logits!, oracle.logits.flat(), TOLERANCE)
      else hidden = { hidden: results.hiddenOut! }
      if (layer === undefined || i === 3) continue
      expectClose(results.hiddenOut!, layer.hidden.flat(), TOLERANCE)
      expectClose(results[tapName(i - 1, 'keys')]!, layer.keys.flat(), TOLERANCE)
    }
  })
})

describe('loadWeights', () => {
  const { backend } = backends[0]!
  const program = buildLlama(randomSource().config, F32)

  test('names the tensor that is missing, before reading any', async () => {
    const source = randomSource()
    let reads = 0
    const broken = {
      ...source,
      has: (name: string) => name !== 'model.layers.1.mlp.up_proj.weight' && source.has(name),
      tensor: (name: string) => {
        reads++
        return source.tensor(name)
      },
    }
    await expect(loadWeights([program], broken, backend)).rejects.toThrow(
      "Expected a tensor 'model.layers.1.mlp.up_proj.weight' in memory but there is none",
    )
    expect(reads).toBe(0)
  })

  test('names the tensors of a wrong shape', async () => {
    const source = randomSource()
    const name = 'model.layers.0.self_attn.k_proj.weight'
    const wrong = { ...source, shape: (n: string) => (n === name ? [17, 32] : source.shape(n)) }
    await expect(loadWeights([program], wrong, backend)).rejects.toThrow(
      /make \[64, 32\] in memory.*k_proj\.weight' of \[17, 32\]/,
    )
  })

  test('tells how far it is, and stops when aborted', async () => {
    const source = randomSource()
    const done: number[] = []
    const controller = new AbortController()
    const onProgress = (progress: { done: number; total: number }): void => {
      done.push(progress.done)
      expect(progress.total).toBe(Object.keys(program.weights).length)
      if (progress.done === 3) controller.abort(new Error('enough'))
    }
    await expect(loadWeights([program], source, backend, { onProgress, signal: controller.signal })).rejects.toThrow(
      'enough',
    )
    expect(done).toEqual([1, 2, 3])
  })

  test('a model of no family is refused', async () => {
    const source = memorySource({ ...randomSource().config, modelType: 'mamba' }, new Map())
    await expect(LanguageModel.load(source, backend)).rejects.toThrow("received 'mamba'")
  })
})
