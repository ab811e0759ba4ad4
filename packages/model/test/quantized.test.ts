import {
  type FireqMetadata,
  type LlamaConfig,
  llamaTensors,
  quantizeInt4,
  type Tensor,
  toFloat32,
} from '@fireq/formats'
import type { Backend, KvCache } from '@fireq/kernels'
import { describe, expect, test } from 'vitest'
import { buildLlama, LanguageModel, type LoadSource } from '../src/index.js'
import { backends } from './support/backends.js'
import { expectClose, relativeError } from './support/compare.js'
import { dense, memorySource, randomIds, randomSource } from './support/memory-source.js'
import { naiveLlama } from './support/naive-llama.js'

const groupSize = 16
const ids = randomIds(19, 40, 7)

/** The random checkpoint with the linears that `choose` names in INT4, and the same values in FP32 for the oracle. */
async function quantized(
  choose: (name: string) => boolean,
  metadata: Partial<FireqMetadata> = {},
): Promise<{ source: LoadSource; values: LoadSource }> {
  const plain = randomSource()
  const [tensors, values] = [new Map<string, Tensor>(), new Map<string, Tensor>()]
  const weights: Record<string, { scale: 'bf16' | 'e4m3' }> = {}
  for (const { name, quantizable } of llamaTensors(plain.config).flatMap((group) => group.tensors)) {
    const tensor = await plain.tensor(name)
    if (!quantizable || !choose(name)) {
      tensors.set(name, tensor)
      values.set(name, tensor)
      continue
    }
    const scale = name.includes('mlp') ? 'bf16' : 'e4m3'
    const int4 = quantizeInt4(toFloat32(tensor), tensor.shape as [number, number], {
      groupSize,
      scale,
      ...(scale === 'e4m3' && { tensorScale: 'auto' }),
    })
    weights[name] = { scale }
    tensors.set(name, int4)
    values.set(name, dense(tensor.shape, toFloat32(int4)))
  }
  const quantization: FireqMetadata = {
    formatVersion: 1,
    activations: 'none',
    queries: 'none',
    probabilities: 'f32',
    kv: { dtype: 'f32' },
    weights,
    ...metadata,
  }
  return {
    source: { ...memorySource(plain.config, tensors), quantization },
    values: memorySource(plain.config, values),
  }
}

const fireq: Partial<FireqMetadata> = {
  activations: 'e4m3',
  queries: 'e4m3',
  probabilities: 'e4m3',
  kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' },
  keyScale: [1, 2].map((seed) => Array.from(randomIds(16, 8, seed), (v) => 0.5 + v / 8)),
}

describe.each(backends)('a quantized checkpoint on $name', ({ backend }) => {
  test('computes with the values that its codes stand for', async () => {
    const { source, values } = await quantized(() => true)
    const { logits } = await naiveLlama(values, ids)
    using model = await LanguageModel.load(source, backend, { plan: { compute: 'f32' } })
    expect(model.plan.unquantizedLinears).toBeUndefined()
    expectClose(await model.logits(ids), logits.flat(), 2e-5)
  })

  test('with everything FireQ quantizes it is near those values, and not equal', async () => {
    const { source, values } = await quantized(() => true, fireq)
    const { logits } = await naiveLlama(values, ids)
    using model = await LanguageModel.load(source, backend)
    expect(model.plan).toMatchObject({
      ...fireq,
      compute: 'bf16',
      keyScale: [expect.any(Float32Array), expect.any(Float32Array)],
    })
    const error = relativeError(await model.logits(ids), logits.flat())
    expect(error).toBeGreaterThan(0.02)
    expect(error).toBeLessThan(0.3)
  })

  test('linears that stayed as they were take their input as it is', async () => {
    const { source } = await quantized((name) => name.includes('layers.0'), fireq)
    using model = await LanguageModel.load(source, backend)
    const rest = ['qkv', 'o', 'gateUp', 'down'].map((name) => `layers.1.${name}`)
    expect(model.plan.unquantizedLinears).toEqual(rest)
    const { ops } = buildLlama(model.config, model.plan)
    const scaled = ops.flatMap((op) => (op.kind === 'linear' && op.operands.xScale ? [op.operands.weight] : []))
    expect(scaled).toEqual(['qkv', 'o', 'gateUp', 'down'].map((name) => `layers.0.${name}`))
    expect(await model.logits(ids, { rows: [18] })).toHaveLength(40)
  })

  test('a plan can switch off what the checkpoint says', async () => {
    const { source } = await quantized(() => true, fireq)
    const plan = {
      compute: 'f32',
      activations: 'none',
      queries: 'none',
      probabilities: 'f32',
      kv: { dtype: 'f32' },
    } as const
    using off = await LanguageModel.load(source, backend, { plan })
    const { values } = await quantized(() => true)
    const { logits } = await naiveLlama(values, ids)
    expectClose(await off.logits(ids), logits.flat(), 2e-5)
  })
})

describe('LanguageModel.load', () => {
  const { backend } = backends[0]!

  test.each([
    [{ kvTokens: 0 }, 'kvTokens but received 0'],
    [{ kvTokens: Number.NaN }, 'kvTokens but received NaN'],
    [{ pageSize: 0 }, 'pageSize but received 0'],
    [{ chunkTokens: 1.5 }, 'chunkTokens but received 1.5'],
  ])('refuses %j', async (options, message) => {
    await expect(LanguageModel.load(randomSource(), backend, options)).rejects.toThrow(message)
  })

  test('frees the weights if there is no memory for the KV cache', async () => {
    let freed = 0
    const poor: Backend = {
      name: backend.name,
      description: backend.description,
      compile: (program, weights) => backend.compile(program, weights),
      async loadWeights(specs, source, options) {
        const weights = await backend.loadWeights(specs, source, options)
        const dispose = (): void => {
          freed++
          weights.dispose()
        }
        return { bytes: weights.bytes, has: (name) => weights.has(name), dispose, [Symbol.dispose]: dispose }
      },
      createKvCache: (): KvCache => {
        throw new RangeError('no memory')
      },
      dispose: () => {},
      [Symbol.dispose]: () => {},
    }
    await expect(LanguageModel.load(randomSource(), poor)).rejects.toThrow('no memory')
    expect(freed).toBe(1)
  })

  test('caps the default KV cache where the context is long', async () => {
    const config: Partial<LlamaConfig> = { maxPositionEmbeddings: 131072, numHiddenLayers: 1 }
    using model = await LanguageModel.load(randomSource(config), backend)
    expect([model.pool.capacity, model.contextLength]).toEqual([4096, 4096])
  })
})
