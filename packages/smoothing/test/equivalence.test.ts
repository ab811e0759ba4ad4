import { describe, expect, it } from 'vitest'
import {
  channelWiseScaling,
  type KeyStatistics,
  type LayerGeometry,
  type LayerWeights,
  type Matrix,
  postRopeScaling,
  preRopeNormalization,
  presets,
  type SmoothedLayer,
  type SmoothingRecipe,
  smoothLayer,
  tiedPartnerScaling,
  valueMultiplier,
} from '../src/index.js'
import { difference, geometries, measure, randomLayer, randomTokens } from './layers.js'

type Transform = (layer: LayerWeights, g: LayerGeometry, stats: KeyStatistics) => SmoothedLayer

const everything: SmoothingRecipe = {
  valueMultiplier: -0.7,
  channelWise: {
    qkv: { type: 1, constant: 3 },
    o: { type: 2, constant: 0.2 },
    gateUp: { type: 2, constant: 0.0096 },
    down: { type: 1, constant: 0.015 },
  },
  preRope: { alpha: 8 },
  postRope: { beta: 8, topK: 3 },
}

const transforms: Record<string, Transform> = {
  'value multiplier': (layer, g) => valueMultiplier(layer, g, 0.9),
  'negative value multiplier': (layer, g) => valueMultiplier(layer, g, -1.3),
  'pre-RoPE normalization': (layer, g, stats) => preRopeNormalization(layer, g, stats, { alpha: 7.5 }),
  'post-RoPE scaling': (layer, g, stats) => ({
    weights: layer,
    ...postRopeScaling(stats, g, { beta: 7.5, topK: 3 }),
  }),
  'tied-partner scaling': (layer, g, stats) => tiedPartnerScaling(layer, g, stats, { beta: 7.5, topK: 3 }),
  'the preset llama-3-8b': (layer, g, stats) => smoothLayer(layer, g, stats, presets['llama-3-8b']),
  'the preset keys-only': (layer, g, stats) => smoothLayer(layer, g, stats, presets['keys-only']),
  'all combined': (layer, g, stats) => smoothLayer(layer, g, stats, everything),
  'all combined, partners tied': (layer, g, stats) =>
    smoothLayer(layer, g, stats, { ...everything, postRope: { beta: 8, topK: 3, partners: 'tied' } }),
  'all combined, twice': (layer, g, stats) => {
    const once = smoothLayer(layer, g, stats, { ...everything, postRope: undefined })
    return smoothLayer(once.weights, g, stats, everything)
  },
}
for (const where of ['qkv', 'o', 'gateUp', 'down'] as const) {
  for (const type of [0, 1, 2] as const) {
    transforms[`channel-wise ${where}, type ${type}`] = (layer, g) =>
      channelWiseScaling(layer, g, { [where]: { type, constant: 0.015 } })
  }
  transforms[`channel-wise ${where}, negative constant`] = (layer, g) =>
    channelWiseScaling(layer, g, { [where]: { type: 0, constant: -2.5 } })
  transforms[`channel-wise ${where}, tiny constant`] = (layer, g) =>
    channelWiseScaling(layer, g, { [where]: { type: 2, constant: 1e-12 } })
}

describe.each(Object.entries(geometries))('%s', (_, g) => {
  const x = randomTokens(g)
  const cases = [randomLayer(g), randomLayer(g, 3, true)].map((layer) => ({ layer, stats: measure(layer, g, x) }))

  it.each(Object.entries(transforms))('%s keeps the outputs and the input', (_, transform) => {
    for (const { layer, stats } of cases) {
      const before = structuredClone(layer)
      const after = transform(layer, g, stats)
      expect(difference(layer, after, g, x)).toBeLessThan(1e-5)
      expect(changedTensors(before, layer)).toEqual([])
      // Something must have happened, or the lines above show nothing.
      expect(changedTensors(layer, after.weights).length + (after.keyScale ? 2 : 0)).toBeGreaterThanOrEqual(2)
    }
  })
})

describe('the grouped-query ties of o', () => {
  const g = geometries['grouped-query 4:1, head_dim 64']
  const [layer, x] = [randomLayer(g), randomTokens(g)]

  it('averaging four adjacent channels instead would change the outputs', () => {
    // What FireQ's published code does: one factor for four neighbours of o, the inverse for one row of v.
    const perColumn = channelMaxima(layer.o.data, layer.o.columns).map((max) => 0.05 / max)
    const averaged = Array.from({ length: layer.v.rows }, (_, i) => mean(perColumn.slice(4 * i, 4 * i + 4)))
    const mistaken: LayerWeights = {
      ...layer,
      o: { ...layer.o, data: layer.o.data.map((w, i) => w * averaged[Math.floor((i % layer.o.columns) / 4)]) },
      v: { ...layer.v, data: layer.v.data.map((w, i) => w / averaged[Math.floor(i / layer.v.columns)]) },
    }
    expect(difference(layer, { weights: mistaken }, g, x)).toBeGreaterThan(0.1)
    const correct = channelWiseScaling(layer, g, { o: { type: 1, constant: 0.05 } })
    expect(difference(layer, correct, g, x)).toBeLessThan(1e-5)
  })

  it('a pair of keys with two scales can not be folded: it would change the outputs', () => {
    const { keyScale } = postRopeScaling(measure(layer, g, x), g, { beta: 8, topK: 3 })
    const folded: LayerWeights = {
      ...layer,
      k: { ...layer.k, data: layer.k.data.map((w, i) => w * keyScale[Math.floor(i / layer.k.columns)]) },
      q: { ...layer.q, data: layer.q.data.map((w, i) => w / keyScale[Math.floor(i / layer.q.columns) % g.headDim]) },
    }
    expect(difference(layer, { weights: folded }, g, x)).toBeGreaterThan(1e-3)
  })
})

function channelMaxima(data: Float32Array, columns: number): number[] {
  const max = new Array<number>(columns).fill(0)
  data.forEach((w, i) => {
    max[i % columns] = Math.max(max[i % columns], Math.abs(w))
  })
  return max
}

function mean(values: number[]): number {
  return values.reduce((a, b) => a + b) / values.length
}

function changedTensors(a: LayerWeights, b: LayerWeights): string[] {
  const bytes = (tensor: Matrix | Float32Array) => Buffer.from(('data' in tensor ? tensor.data : tensor).buffer)
  return Object.keys(a).filter((key) => {
    const [before, after] = [a[key as keyof LayerWeights], b[key as keyof LayerWeights]]
    return before !== undefined && (after === undefined || !bytes(before).equals(bytes(after)))
  })
}
