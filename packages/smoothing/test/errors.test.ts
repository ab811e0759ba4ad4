import { describe, expect, it } from 'vitest'
import {
  type ChannelScaling,
  channelScales,
  channelWiseScaling,
  type KeyStatistics,
  type LayerWeights,
  postRopeScaling,
  preRopeNormalization,
  presets,
  scaleStatistics,
  selectOutlierPairs,
  smoothLayer,
  tiedPartnerScaling,
  valueMultiplier,
} from '../src/index.js'
import { geometry, matrixOf, measure, randomLayer, randomTokens } from './layers.js'

const g = geometry(4, 2, 4)
const layer = randomLayer(g, 1, true)
const stats = measure(layer, g, randomTokens(g))

// headDim is 4 here, too small for the preset's top 8.
const recipe = { ...presets['llama-3-8b'], postRope: { beta: 8, topK: 1 } }

describe('weights', () => {
  const smooth = (broken: Partial<Record<keyof LayerWeights, unknown>>) => () =>
    smoothLayer({ ...layer, ...broken } as LayerWeights, g, stats, recipe)

  it.each([
    ['a wrong shape', { q: layer.k }, 'Expected the shape [16, 24] for q but received [8, 24]'],
    ['a transposed matrix', { o: layer.q, q: layer.o }, 'Expected the shape [16, 24] for q but received [24, 16]'],
    [
      'too little data',
      { up: { ...layer.up, data: new Float32Array(3) } },
      'Expected 960 values for up but received 3',
    ],
    ['no matrix', { down: undefined }, 'Expected a matrix for down but received undefined'],
    ['a short norm', { inputNorm: new Float32Array(7) }, 'Expected 24 values for inputNorm but received 7'],
    [
      'no norm',
      { postAttentionNorm: undefined },
      'Expected a Float32Array for postAttentionNorm but received undefined',
    ],
    ['another type', { inputNorm: [1, 2] }, 'Expected a Float32Array for inputNorm but received Array'],
    ['a short bias', { vBias: new Float32Array(3) }, 'Expected 8 values for vBias but received 3'],
    ['a NaN bias', { vBias: layer.vBias!.with(2, NaN) }, 'Expected a finite value for vBias[2] but received NaN'],
  ])('%s', (_, broken, message) => {
    expect(smooth(broken)).toThrow(message)
  })

  it.each(['v', 'o', 'gate', 'up', 'down', 'q', 'k'] as const)('a value of %s that is not finite', (name) => {
    for (const value of [NaN, Infinity, -Infinity]) {
      const matrix = layer[name]
      const data = matrix.data.with(3 * matrix.columns + 2, value)
      expect(smooth({ [name]: { ...matrix, data } })).toThrow(
        `Expected a finite value for ${name}[3, 2] but received ${value}`,
      )
    }
  })

  it('a value of a norm that is not finite', () => {
    expect(smooth({ postAttentionNorm: layer.postAttentionNorm.with(4, Infinity) })).toThrow(
      'Expected a finite value for postAttentionNorm[4] but received Infinity',
    )
  })

  it('a fold that overflows float32', () => {
    const large = { ...layer, v: { ...layer.v, data: new Float32Array(layer.v.data.length).with(5, -2) } }
    expect(() => valueMultiplier(large, g, 1e39)).toThrow('Expected a finite value for v[0, 5] but received -Infinity')
  })
})

describe('geometry', () => {
  it.each([
    [{ numKeyValueHeads: 3 }, 'Expected numKeyValueHeads to divide the 4 attention heads but received 3'],
    [{ headDim: 5 }, 'Expected an even headDim but received 5'],
    [{ headDim: 0 }, 'Expected a positive integer for headDim but received 0'],
    [{ hiddenSize: 1.5 }, 'Expected a positive integer for hiddenSize but received 1.5'],
  ])('%o', (broken, message) => {
    expect(() => channelWiseScaling(layer, { ...g, ...broken }, {})).toThrow(message)
    expect(() => selectOutlierPairs(stats, { ...g, ...broken }, 1)).toThrow(message)
  })
})

describe('statistics', () => {
  it.each([
    [{ pairNorm: new Float32Array(3) }, 'Expected 4 values for pairNorm but received 3'],
    [{ postRopeAbsMax: new Float32Array(4) }, 'Expected 8 values for postRopeAbsMax but received 4'],
    [
      { pairNorm: stats.pairNorm.with(1, NaN) },
      'Expected a finite, non-negative value for pairNorm[1] but received NaN',
    ],
    [
      { postRopeAbsMax: stats.postRopeAbsMax.with(6, Infinity) },
      'Expected a finite, non-negative value for postRopeAbsMax[6] but received Infinity',
    ],
    [{ pairNorm: stats.pairNorm.with(0, -1) }, 'Expected a finite, non-negative value for pairNorm[0] but received -1'],
  ])('%o', (broken, message) => {
    const bad: KeyStatistics = { ...stats, ...broken }
    expect(() => preRopeNormalization(layer, g, bad, { alpha: 8 })).toThrow(message)
    expect(() => postRopeScaling(bad, g, { beta: 8, topK: 1 })).toThrow(message)
    expect(() => tiedPartnerScaling(layer, g, bad, { beta: 8, topK: 1 })).toThrow(message)
    expect(() => scaleStatistics(bad, g, new Float64Array(4).fill(1))).toThrow(message)
  })

  it('a pair scale that does not fit', () => {
    expect(() => scaleStatistics(stats, g, new Float32Array(8))).toThrow(
      'Expected 4 values for pairScale but received 8',
    )
    expect(() => scaleStatistics(stats, g, Float32Array.of(1, NaN, 1, 1))).toThrow(
      'Expected a finite value for pairScale[1] but received NaN',
    )
  })

  it('missing where the recipe needs them, and only there', () => {
    expect(() => smoothLayer(layer, g, undefined, { preRope: { alpha: 8 } })).toThrow(
      'Expected key statistics for preRope and postRope but received undefined',
    )
    expect(smoothLayer(layer, g, undefined, { valueMultiplier: 0.9 }).plan).toHaveLength(1)
    expect(smoothLayer(layer, g, undefined, {})).toEqual({ weights: layer, plan: [] })
  })
})

describe('options', () => {
  it.each([0, NaN, Infinity])('factor %d', (value) => {
    expect(() => valueMultiplier(layer, g, value)).toThrow(
      `Expected a finite nonzero number for the value multiplier but received ${value}`,
    )
    expect(() => channelWiseScaling(layer, g, { down: { type: 0, constant: value } })).toThrow(
      `Expected a finite nonzero number for the constant of down but received ${value}`,
    )
  })

  it.each([0, -8, NaN, Infinity])('target %d', (value) => {
    const message = (name: string) => `Expected a finite positive number for ${name} but received ${value}`
    expect(() => channelWiseScaling(layer, g, { qkv: { type: 1, constant: value } })).toThrow(
      message('the constant of qkv'),
    )
    expect(() => preRopeNormalization(layer, g, stats, { alpha: value })).toThrow(message('alpha'))
    expect(() => postRopeScaling(stats, g, { beta: value, topK: 1 })).toThrow(message('beta'))
    expect(() => tiedPartnerScaling(layer, g, stats, { beta: value, topK: 1 })).toThrow(message('beta'))
  })

  it.each([0, 5, 1.5, NaN])('topK %d', (topK) => {
    expect(() => postRopeScaling(stats, g, { beta: 8, topK })).toThrow(
      `Expected an integer from 1 to headDim 4 for topK but received ${topK}`,
    )
  })

  it('a type that does not exist', () => {
    const scaling = { type: 3, constant: 1 } as unknown as ChannelScaling
    expect(() => channelWiseScaling(layer, g, { gateUp: scaling })).toThrow(
      'Expected the type 0, 1 or 2 for the scaling of gateUp but received 3',
    )
  })

  it('partners of another kind', () => {
    const postRope = { beta: 8, topK: 1, partners: 'both' as 'own' }
    expect(() => smoothLayer(layer, g, stats, { postRope })).toThrow(
      'Expected own or tied for the partners of postRope but received both',
    )
  })

  it('skipped pairs that do not exist', () => {
    expect(() => preRopeNormalization(layer, g, stats, { alpha: 8, skipPairs: new Set([4]) })).toThrow(
      'Expected pairs below 4 for skipPairs but received 4',
    )
  })

  it('matrices that do not share their input', () => {
    expect(() => channelScales('ab', { a: matrixOf([[1, 2]]), b: matrixOf([[1]]) }, { type: 1, constant: 1 })).toThrow(
      'Expected 2 columns, as in a, for b but received 1',
    )
    expect(() => channelScales('ab', {}, { type: 1, constant: 1 })).toThrow(
      'Expected at least one matrix for the scaling of ab but received none',
    )
  })
})
