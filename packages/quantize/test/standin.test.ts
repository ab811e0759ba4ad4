import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { calibrationWindows, LayerRunner } from '@fireq/calibration'
import { decodeBf16, type ModelSource, openModel, type Tensor, toFloat32, vllmW4A8Load } from '@fireq/formats'
import { backendReport, createBackend } from '@fireq/kernels'
import { evaluate, LanguageModel, type LoadModelOptions, type LoadSource } from '@fireq/model'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadRecipe, parseRecipe, preflight, quantizeModel } from '../src/index.js'
import { fromLayerWeights } from '../src/layer/layer-tensors.js'
import { transformLayer } from '../src/layer/round-layer.js'
import { layerTransforms, observersOf } from '../src/layer/transforms.js'
import { digests } from './digests.js'

const backend = createBackend('auto', { onNotice: () => {} })
const standin = fileURLToPath(new URL('../../../models/standin', import.meta.url))
const inFloat32: LoadModelOptions = {
  plan: { compute: 'f32', activations: 'none', queries: 'none', probabilities: 'f32', kv: { dtype: 'f32' } },
}
let dir: string
let source: ModelSource
/** 64 texts of 1024 tokens that the model itself wrote. */
let tokens: Int32Array

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fireq-standin-'))
  source = await openModel(standin)
  const bytes = await readFile(join(standin, 'samples.bin'))
  tokens = Int32Array.from(new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2))
})
afterAll(async () => {
  backend.dispose()
  await source.close()
  await rm(dir, { recursive: true })
})

describe('smoothing leaves the function of a trained model as it was', () => {
  const LAYERS = 2 // of eight, to be quick
  const prompt = [...Array(8).keys()].map((i) => (i * 379 + 11) % 4096)
  let logits: Float32Array
  let short: LoadSource

  const logitsOf = async (model: LoadSource, keyScale?: Float32Array[]) => {
    using loaded = await LanguageModel.load(model, backend, {
      plan: { ...inFloat32.plan, ...(keyScale && { keyScale }) },
    })
    const last = prompt.length - 1
    for await (const { logits } of loaded.streamLogits(prompt, { rows: [last] })) return logits.slice()
    throw new Error('no logits')
  }
  beforeAll(async () => {
    const config = { ...source.config, numHiddenLayers: LAYERS }
    short = {
      dir: source.dir,
      config,
      has: (name) => source.has(name),
      shape: (name) => source.shape(name),
      tensor: (name) => source.tensor(name),
    }
    logits = await logitsOf(short)
  })

  /** The short model, transformed by a recipe's smoothing but not rounded. */
  async function transformed(smoothing: object) {
    const recipe = parseRecipe({ smoothing, calibration: { windows: 2, length: 16 } })
    const { config } = short
    const windows = calibrationWindows(tokens, { count: 2, length: 16 })
    using runner = await LayerRunner.start({ config, backend, windows }, short.tensor)
    const values = new Map<string, Float32Array>()
    const keyScale: Float32Array[] = []
    for (let layer = 0; layer < LAYERS; layer++) {
      const names = source.names().filter((name) => name.startsWith(`model.layers.${layer}.`))
      const loaded = new Map<string, Tensor>()
      for (const name of names) loaded.set(name, await source.tensor(name))
      const transforms = layerTransforms(recipe, config, layer)
      if (layer === runner.layer) await runner.run(short.tensor, observersOf(transforms))
      const draft = transformLayer(layer, loaded, transforms)
      for (const [name, changed] of fromLayerWeights(layer, draft.weights)) values.set(name, changed)
      if (draft.keyScale) keyScale.push(draft.keyScale)
    }
    const tensor = async (name: string): Promise<Tensor> => {
      const data = values.get(name)
      return data ? { kind: 'dense', dtype: 'f32', shape: source.shape(name), data } : await source.tensor(name)
    }
    return { model: { ...short, tensor }, values, keyScale: keyScale.length > 0 ? keyScale : undefined }
  }

  const scaling = { type: 2, constant: 0.05 }
  const all = {
    channelWise: { qkv: scaling, o: { type: 1, constant: 0.5 }, gateUp: scaling, down: scaling },
    valueMultiplier: 0.9,
    preRope: { alpha: 8 },
  }
  const own = { beta: 8, topK: 8 }
  it.each<[string, object, string[]]>([
    ['channel-wise qkv', { channelWise: { qkv: scaling } }, ['q', 'k', 'v']],
    ['channel-wise o', { channelWise: { o: { type: 1, constant: 0.5 } } }, ['v', 'o']],
    ['channel-wise gate and up', { channelWise: { gateUp: { type: 0, constant: 3 } } }, ['gate', 'up']],
    ['channel-wise down', { channelWise: { down: scaling } }, ['up', 'down']],
    ['value multiplier', { valueMultiplier: 0.9 }, ['v', 'o']],
    ['pre-RoPE', { preRope: { alpha: 8 } }, ['q', 'k']],
    ['post-RoPE at run time', { postRope: own }, []],
    ['post-RoPE tied', { postRope: { ...own, partners: 'tied' } }, ['q', 'k']],
    ['all', { ...all, postRope: own }, ['q', 'k', 'v', 'o', 'gate', 'up', 'down']],
    ['all, tied', { ...all, postRope: { ...own, partners: 'tied' } }, ['q', 'k', 'v', 'o', 'gate', 'up', 'down']],
  ])('%s', async (_, smoothing, changed) => {
    const { model, values, keyScale } = await transformed(smoothing)
    const distance = (a: Float32Array, b: Float32Array) => Math.hypot(...a.map((v, i) => v - b[i]!)) / Math.hypot(...a)
    for (const [name, data] of values) {
      const short = /(\w+)_proj\.weight$/.exec(name)?.[1]
      if (short === undefined) continue
      const original = toFloat32(await source.tensor(name))
      const moved = Math.sqrt(data.reduce((sum, v, i) => sum + (v - original[i]!) ** 2, 0))
      expect(moved > 0, name).toBe(changed.includes(short))
    }
    expect(keyScale !== undefined).toBe('postRope' in smoothing && !JSON.stringify(smoothing).includes('tied'))
    expect(distance(logits, await logitsOf(model, keyScale))).toBeLessThan(1e-4)
  })
})

describe('the stand-in model, quantized end to end', () => {
  const window = () => [tokens.slice(5 * 1024, 5 * 1024 + 32)]

  it.each([
    ['rtn', 4.125],
    ['fireq', 4.125],
    ['fireq-vllm', 4.125],
  ])('%s', async (name, bits) => {
    const recipe = { ...(await loadRecipe(name)), calibration: { windows: 2, length: 24, seed: 0 } }
    const out = join(dir, name)
    const calibrationIds = tokens.subarray(32 * 1024)
    const plan = await preflight(source, recipe, out, { calibrationIds })
    expect(plan.problems).toEqual([])
    expect(plan.bitsPerWeight).toBeCloseTo(bits, 2)
    const { layers } = await quantizeModel(source, recipe, out, { backend, calibrationIds })
    for (const { weightErrors } of layers) {
      for (const { snr } of Object.values(weightErrors)) {
        // Round-to-nearest of Gaussian weights in groups of 128 has 18.6 dB; E4M3 scales cost a little.
        expect(snr).toBeGreaterThan(17)
        expect(snr).toBeLessThan(20.5)
      }
    }
    using model = await LanguageModel.load(out, backend, { plan: { compute: 'f32' }, kvTokens: 64 })
    using baseline = await LanguageModel.load(source, backend, { ...inFloat32, kvTokens: 64 })
    const { klDivergence, top1Agreement } = await evaluate(model, window(), { baseline })
    expect(klDivergence).toBeGreaterThan(0.001)
    expect(klDivergence).toBeLessThan(0.25)
    expect(top1Agreement).toBeGreaterThan(0.7)
  })

  it('fireq-vllm writes scales that vLLM keeps, and nothing that only this engine could run', async () => {
    await using model = await openModel(join(dir, 'fireq-vllm'))
    expect(model.quantization).toMatchObject({ queries: 'none', kv: { dtype: 'bf16' } })
    expect(model.quantization?.keyScale).toBeUndefined()
    const rounded = model.names().filter((name) => model.dtype(name) === 'i4g')
    expect(rounded.length).toBe(56)
    for (const name of rounded) {
      const tensor = await model.tensor(name)
      if (tensor.kind !== 'int4' || tensor.groupScale.dtype !== 'bf16') throw new Error(`${name} has no BF16 scales`)
      const [N, K] = tensor.shape
      const { effective } = vllmW4A8Load(tensor.groupScale.data, N, K / 128)
      const stored = decodeBf16(tensor.groupScale.data)
      // Below the floor of vLLM's factor, rows keep their scales to BF16 only.
      const off = Math.max(...stored.map((scale, i) => Math.abs(effective[i]! / scale - 1)))
      expect(off, name).toBeLessThanOrEqual(2 ** -8)
      expect(stored.some((scale, i) => Math.abs(scale) > 2 ** -8 && effective[i] !== scale)).toBe(false)
    }
  })

  it.skipIf(!backendReport().some(({ name, usable }) => name === 'cpu' && usable))(
    'is the same to the bit on the cpu backend, resumed or not, on one thread or two',
    async () => {
      const recipe = { ...(await loadRecipe('fireq')), calibration: { windows: 2, length: 100, seed: 3 } }
      const quantize = async (name: string, threads: number, stopAt?: number) => {
        using cpu = createBackend('cpu', { threads })
        const controller = new AbortController()
        const onProgress = ({ layer }: { layer?: number }) => {
          if (layer === stopAt) controller.abort()
        }
        await quantizeModel(source, recipe, join(dir, name), {
          backend: cpu,
          calibrationIds: tokens,
          ...(stopAt !== undefined && { signal: controller.signal, onProgress }),
        })
      }
      await quantize('whole', 2)
      await expect(quantize('resumed', 1, 5)).rejects.toThrow('aborted')
      await quantize('resumed', 2)
      expect(await digests(join(dir, 'resumed'))).toEqual(await digests(join(dir, 'whole')))
    },
  )
})
