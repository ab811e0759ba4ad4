import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  channelScales,
  channelWiseScaling,
  type LayerGeometry,
  type LayerWeights,
  type Matrix,
  smoothLayer,
  valueMultiplier,
} from '../src/index.js'
import { difference, geometry, matrixOf, measure, randomLayer, randomTokens } from './layers.js'

const a = matrixOf([
  [1, -8, 0],
  [-3, 2, 0],
])
const b = matrixOf([[5, 0.5, 0]])

describe('channel scales by hand', () => {
  it.each([
    [0, 6, [6, 6, 6]],
    [1, 6, [6 / 5, 6 / 8, 1]],
    [2, 6, [6 / 3, 6 / 3.5, 1]],
  ] as const)('type %i, constant %d: over all rows of all matrices, dead channels 1', (type, constant, expected) => {
    expect([...channelScales('ab', { a, b }, { type, constant })]).toEqual(expected)
  })

  it('tied columns share one statistic over all their rows', () => {
    const o = matrixOf([
      [1, -8, 3, 2],
      [-3, 2, 1, 2],
    ])
    const ties = Int32Array.of(0, 1, 0, 1)
    expect([...channelScales('o', { o }, { type: 1, constant: 6 }, ties)]).toEqual([2, 0.75])
    expect([...channelScales('o', { o }, { type: 2, constant: 7 }, ties)]).toEqual([3.5, 2])
    expect([...channelScales('o', { o }, { type: 0, constant: 7 }, ties)]).toEqual([7, 7])
  })

  it('a channel of next to nothing counts as dead, a merely small one does not', () => {
    const w = matrixOf([[1e-30, 1e-12]])
    expect([...channelScales('w', { w }, { type: 1, constant: 1 })]).toEqual([1, 1 / Math.fround(1e-12)])
  })
})

describe('channel-wise scaling', () => {
  const g = geometry(8, 2, 4)
  const layer = randomLayer(g, 4, true)

  it('brings the mean or max of every input channel to the constant', () => {
    const scaling = (type: 1 | 2) => ({ type, constant: 0.015 })
    for (const [type, statistic] of [
      [1, columnMax],
      [2, columnMean],
    ] as const) {
      const { weights } = channelWiseScaling(layer, g, { qkv: scaling(type), gateUp: scaling(type) })
      expectAll(statistic(stack(weights.q, weights.k, weights.v)), 0.015)
      expectAll(statistic(stack(weights.gate, weights.up)), 0.015)
      expectAll(statistic(channelWiseScaling(layer, g, { down: scaling(type) }).weights.down), 0.015)
    }
  })

  it('takes all statistics from the weights as given: down leaves the scales of gate and up alone', () => {
    const options = { gateUp: { type: 2, constant: 0.0096 }, down: { type: 2, constant: 0.015 } } as const
    const both = channelWiseScaling(layer, g, options)
    const alone = channelWiseScaling(layer, g, { gateUp: options.gateUp })
    expect(both.weights.postAttentionNorm).toEqual(alone.weights.postAttentionNorm)
    expect(both.plan[0]).toEqual(alone.plan[0])
  })

  it('ties the columns of o over the query heads of a key-value head', () => {
    const { weights } = channelWiseScaling(layer, g, { o: { type: 1, constant: 0.2 } })
    const factor = (column: number) => weights.o.data[column] / layer.o.data[column]
    for (let head = 0; head < 8; head++) {
      for (let d = 0; d < g.headDim; d++) {
        const group = Math.floor(head / 4)
        expect(factor(head * g.headDim + d)).toBeCloseTo(factor(group * 4 * g.headDim + d), 5)
        const row = (group * g.headDim + d) * g.hiddenSize
        expect(layer.v.data[row] / weights.v.data[row]).toBeCloseTo(factor(head * g.headDim + d), 5)
        const bias = group * g.headDim + d
        expect(layer.vBias![bias] / weights.vBias![bias]).toBeCloseTo(factor(head * g.headDim + d), 5)
      }
    }
    // The largest column of each tie is at the constant.
    const max = columnMax(weights.o)
    for (let channel = 0; channel < 2 * g.headDim; channel++) {
      const [group, d] = [Math.floor(channel / g.headDim), channel % g.headDim]
      const tied = [0, 1, 2, 3].map((h) => max[(group * 4 + h) * g.headDim + d])
      expect(Math.max(...tied)).toBeCloseTo(0.2, 6)
    }
  })

  it('leaves dead channels alone and still scales the others', () => {
    const dead = {
      ...layer,
      down: { ...layer.down, data: layer.down.data.map((w, i) => (i % layer.down.columns === 7 ? 0 : w)) },
    }
    const { weights, plan } = channelWiseScaling(dead, g, { down: { type: 2, constant: 0.015 } })
    expect(plan[0].scale.leftAlone).toBe(1)
    const row = (m: Matrix) => m.data.slice(7 * g.hiddenSize, 8 * g.hiddenSize)
    expect(row(weights.up)).toEqual(row(dead.up))
    expect(difference(dead, { weights }, g, randomTokens(g))).toBeLessThan(1e-5)
  })

  it.each(['qkv', 'o', 'gateUp', 'down'])('%s done twice is done once with the second constant', (where) => {
    for (const type of [1, 2] as const) {
      const fold = (weights: LayerWeights, constant: number) =>
        channelWiseScaling(weights, g, { [where]: { type, constant } }).weights
      expectClose(fold(fold(layer, 0.01), 0.3), fold(layer, 0.3))
    }
  })
})

describe('the value multiplier', () => {
  const g = geometry(4, 2, 4)
  const layer = randomLayer(g, 5, true)

  it('multiplies v and its bias, divides o, leaves the rest', () => {
    const { weights, plan } = valueMultiplier(layer, g, 0.5)
    expect(weights.v.data).toEqual(layer.v.data.map((w) => w * 0.5))
    expect(weights.vBias).toEqual(layer.vBias!.map((w) => w * 0.5))
    expect(weights.o.data).toEqual(layer.o.data.map((w) => w * 2))
    expect({ ...weights, v: 0, vBias: 0, o: 0 }).toEqual({ ...layer, v: 0, vBias: 0, o: 0 })
    expect(plan[0].scale).toEqual({ min: 0.5, max: 0.5, count: 8, leftAlone: 0 })
  })

  it('composes by multiplication', () => {
    const nonzero = fc.double({ min: 0.01, max: 100, noNaN: true }).chain((m) => fc.constantFrom(m, -m))
    fc.assert(
      fc.property(nonzero, nonzero, (m, n) => {
        const twice = valueMultiplier(valueMultiplier(layer, g, m).weights, g, n)
        expectClose(twice.weights, valueMultiplier(layer, g, m * n).weights)
      }),
      { numRuns: 30 },
    )
  })
})

it('any recipe on any layer keeps the outputs', () => {
  const scaling = fc.record({
    type: fc.constantFrom(0, 1, 2),
    constant: fc.double({ min: 1e-4, max: 10, noNaN: true }),
  })
  const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
  const target = fc.double({ min: 0.1, max: 20, noNaN: true })
  const recipe = fc.record({
    valueMultiplier: maybe(fc.double({ min: 0.1, max: 10, noNaN: true })),
    channelWise: fc.record({ qkv: maybe(scaling), o: maybe(scaling), gateUp: maybe(scaling), down: maybe(scaling) }),
    preRope: maybe(fc.record({ alpha: target })),
    postRope: maybe(
      fc.record({ beta: target, topK: fc.integer({ min: 1, max: 4 }), partners: fc.constantFrom('own', 'tied') }),
    ),
  })
  const shape = fc.tuple(fc.constantFrom(1, 2, 3), fc.constantFrom(1, 2, 4), fc.constantFrom(4, 6, 16))
  fc.assert(
    fc.property(shape, recipe, fc.integer(), fc.boolean(), ([kv, group, headDim], chosen, seed, biases) => {
      const g: LayerGeometry = geometry(kv * group, kv, headDim)
      const [layer, x] = [randomLayer(g, seed, biases), randomTokens(g, seed + 1)]
      const after = smoothLayer(layer, g, measure(layer, g, x), chosen)
      expect(difference(layer, after, g, x)).toBeLessThan(1e-4)
    }),
    { numRuns: 60 },
  )
})

function stack(...matrices: Matrix[]): Matrix {
  const data = Float32Array.from(matrices.flatMap((m) => [...m.data]))
  return { rows: data.length / matrices[0].columns, columns: matrices[0].columns, data }
}

function columnMax({ columns, data }: Matrix): Float64Array {
  const max = new Float64Array(columns)
  data.forEach((w, i) => {
    max[i % columns] = Math.max(max[i % columns], Math.abs(w))
  })
  return max
}

function columnMean({ rows, columns, data }: Matrix): Float64Array {
  const sum = new Float64Array(columns)
  data.forEach((w, i) => {
    sum[i % columns] += Math.abs(w)
  })
  return sum.map((total) => total / rows)
}

function expectAll(values: Float64Array, expected: number): void {
  expect(values.length).toBeGreaterThan(0)
  for (const value of values) expect(Math.abs(value / expected - 1)).toBeLessThan(1e-6)
}

function expectClose(received: LayerWeights, expected: LayerWeights): void {
  for (const key of Object.keys(expected) as (keyof LayerWeights)[]) {
    const [r, e] = [received[key]!, expected[key]!].map((t) => ('data' in t ? t.data : t))
    e.forEach((value, i) => {
      if (Math.abs(r[i] - value) > 1e-6 * Math.abs(value)) {
        throw new Error(`${key}, element ${i}: expected ${value} but received ${r[i]}`)
      }
    })
  }
}
