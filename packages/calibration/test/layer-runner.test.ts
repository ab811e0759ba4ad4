import { ReferenceBackend } from '@fireq/kernels'
import { buildLlama, type LlamaPlan } from '@fireq/model'
import { beforeAll, describe, expect, it } from 'vitest'
import { ChannelAccumulator, calibrateModel, KeyAccumulator, LayerRunner } from '../src/index.js'
import { tinyConfig, tinyWeights } from './tiny-model.js'

const backend = new ReferenceBackend()
const windows = [Int32Array.of(1, 5, 49, 0, 7), Int32Array.of(9, 9, 3)]
const options = { config: tinyConfig, backend, windows }
const plan: LlamaPlan = {
  compute: 'f32',
  activations: 'none',
  queries: 'none',
  probabilities: 'f32',
  kv: { dtype: 'f32' },
}

/** Keys and last hidden states of a window, from the whole model as one program. */
async function wholeModel(tokens: Int32Array) {
  const program = buildLlama(tinyConfig, plan, { to: 'hidden', taps: ['keys', 'downInput'] })
  const weights = await backend.loadWeights(program.weights, tinyWeights().tensor)
  const executable = await backend.compile(program, weights)
  const kv = backend.createKvCache(program.kv!, { pages: 1, pageSize: tokens.length })
  const positions = tokens.map((_, t) => t)
  const length = Int32Array.of(tokens.length)
  const feeds = {
    tokens,
    positions,
    slots: positions,
    queryEnds: length,
    contextLengths: length,
    pageTable: Int32Array.of(0),
  }
  return (await executable.run(feeds, { kv })) as Record<string, Float32Array>
}

describe('LayerRunner', () => {
  let whole: Record<string, Float32Array>[]
  beforeAll(async () => {
    whole = await Promise.all(windows.map(wholeModel))
  })

  it('shows what the whole model shows, layer by layer, and asks for one layer at a time', async () => {
    const { asked, tensor } = tinyWeights()
    using runner = await LayerRunner.start(options, tensor)
    expect(asked).toEqual(['model.embed_tokens.weight'])
    for (let layer = 0; layer < 3; layer++) {
      asked.length = 0
      const keys = new KeyAccumulator(2, 8)
      const down = new ChannelAccumulator(40)
      expect(runner.layer).toBe(layer)
      await runner.run(tensor, { keys: [keys], downInput: [down] })
      expect(asked.every((name) => name.startsWith(`model.layers.${layer}.`))).toBe(true)

      const [expectedKeys, expectedDown] = [new KeyAccumulator(2, 8), new ChannelAccumulator(40)]
      for (const results of whole) {
        expectedKeys.add(results[`layers.${layer}.keys`]!)
        expectedDown.add(results[`layers.${layer}.downInput`]!)
      }
      expect(keys.summary()).toEqual(expectedKeys.summary())
      expect(keys.summary().rows).toBe(8)
      expect(down.summary()).toEqual(expectedDown.summary())
    }
    expect(runner.snapshot().hidden).toEqual(whole.map(({ hiddenOut }) => hiddenOut))
  })

  it('goes on from a snapshot as if it had not stopped', async () => {
    const { tensor } = tinyWeights()
    const first = await LayerRunner.start(options, tensor)
    await first.run(tensor)
    const snapshot = first.snapshot()
    await first.run(tensor)
    const second = LayerRunner.resume(options, snapshot)
    expect(second.layer).toBe(1)
    await second.run(tensor)
    expect(second.snapshot()).toEqual(first.snapshot())
    expect(snapshot.layer).toBe(1)
  })

  it('refuses a snapshot of other windows', () => {
    const hidden = windows.map((window) => new Float32Array(window.length * 24))
    expect(() => LayerRunner.resume(options, { layer: 4, hidden })).toThrow('from 0 to 3 but received 4')
    expect(() => LayerRunner.resume(options, { layer: 1, hidden: hidden.slice(1) })).toThrow(
      'Expected a snapshot of 2 windows',
    )
  })

  it('can be aborted within a layer, and then says that it is broken', async () => {
    const { tensor } = tinyWeights()
    const runner = await LayerRunner.start(options, tensor)
    const controller = new AbortController()
    const onProgress = ({ done }: { done: number }) => {
      if (done === 1) controller.abort(new Error('enough'))
    }
    await expect(runner.run(tensor, {}, { signal: controller.signal, onProgress })).rejects.toThrow('enough')
    await expect(runner.run(tensor)).rejects.toThrow('start another')
    expect(() => runner.snapshot()).toThrow('start another')
  })

  it('reports progress by window', async () => {
    const { tensor } = tinyWeights()
    using runner = await LayerRunner.start(options, tensor)
    const seen: unknown[] = []
    await runner.run(tensor, {}, { onProgress: (progress) => seen.push(progress) })
    expect(seen).toEqual([
      { layer: 0, windows: 2, done: 1 },
      { layer: 0, windows: 2, done: 2 },
    ])
  })

  it('names the layer and the point where activations stop being finite', async () => {
    const { tensor } = tinyWeights((name, weight) => {
      if (name === 'model.layers.1.self_attn.k_proj.bias') (weight as { data: Float32Array }).data.fill(Number.NaN)
      return weight
    })
    using runner = await LayerRunner.start(options, tensor)
    await runner.run(tensor, { keys: [new KeyAccumulator(2, 8)] })
    await expect(runner.run(tensor, { keys: [new KeyAccumulator(2, 8)] })).rejects.toThrow(
      'Layer 1, keys: Expected finite activations but channel 0 is not',
    )
  })

  it('refuses no windows, empty ones and ones longer than the model takes', async () => {
    const start = (windows: Int32Array[]) => LayerRunner.start({ ...options, windows }, tinyWeights().tensor)
    await expect(start([])).rejects.toThrow('at least one calibration window')
    await expect(start([new Int32Array(3), new Int32Array(65)])).rejects.toThrow(
      'Expected 1 to 64 tokens (max_position_embeddings) in calibration window 1 but received 65',
    )
    await expect(start([new Int32Array(0)])).rejects.toThrow('window 0 but received 0')
    await expect(start([Int32Array.of(50)])).rejects.toThrow('token 0 has id 50')
  })
})

describe('calibrateModel', () => {
  it('summarizes every layer at the points asked for', async () => {
    const source = { config: tinyConfig, tensor: tinyWeights().tensor }
    const statistics = await calibrateModel(source, { backend, windows, taps: ['qkvInput', 'keys', 'downInput'] })
    expect(statistics.map(({ layer }) => layer)).toEqual([0, 1, 2])
    for (const { keys, activations } of statistics) {
      expect(Object.keys(activations)).toEqual(['qkvInput', 'keys', 'downInput'])
      expect(activations.keys!.channels.absMax).toEqual(keys.postRopeAbsMax)
      expect(activations.downInput!.channels.absMax.length).toBe(40)
      expect(activations.qkvInput!.histogram.count).toBe(8 * 24)
    }
  })
})
