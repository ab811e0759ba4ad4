import { describe, expect, it } from 'vitest'
import {
  type KeyStatistics,
  postRopeScaling,
  preRopeNormalization,
  preRopeScales,
  scaleStatistics,
  selectOutlierPairs,
  smoothLayer,
  tiedPartnerScales,
  tiedPartnerScaling,
} from '../src/index.js'
import { difference, geometries, geometry, measure, randomLayer, randomTokens } from './layers.js'

// Two key-value heads of four channels: pairs (0, 2) and (1, 3) of each head, in all 0…3.
const small = geometry(4, 2, 4)
const stats: KeyStatistics = {
  pairNorm: Float32Array.of(16, 4, 0, 2),
  postRopeAbsMax: Float32Array.of(16, 1, 4, 3.5, 0, 2, 0, 0.5),
}

describe('by hand', () => {
  it('selects the top channels of each head, with their partners', () => {
    expect([...selectOutlierPairs(stats, small, 1)]).toEqual([0, 3])
    expect([...selectOutlierPairs(stats, small, 2)]).toEqual([0, 3])
    expect([...selectOutlierPairs(stats, small, 3)]).toEqual([0, 1, 3, 2])
  })

  it('of equal channels takes the lower one', () => {
    const equal = { pairNorm: new Float32Array(4), postRopeAbsMax: new Float32Array(8).fill(2) }
    expect([...selectOutlierPairs(equal, small, 1)]).toEqual([0, 2])
  })

  it('pre-RoPE: α / n_i, dead and skipped pairs 1', () => {
    expect([...preRopeScales(stats, small, { alpha: 8 })]).toEqual([0.5, 2, 1, 4])
    expect([...preRopeScales(stats, small, { alpha: 8, skipPairs: new Set([0]) })]).toEqual([1, 2, 1, 4])
  })

  it('post-RoPE: β / max of each channel of its own, the rest and dead ones 1', () => {
    const { keyScale, plan } = postRopeScaling(stats, small, { beta: 8, topK: 1 })
    expect([...keyScale]).toEqual([0.5, 1, 2, 1, 1, 4, 1, 16])
    expect(plan[0].scale).toEqual({ min: 0.5, max: 16, count: 8, leftAlone: 4 })
  })

  it('tied partners: β / the larger max of the pair', () => {
    expect([...tiedPartnerScales(stats, small, { beta: 8, topK: 1 })]).toEqual([0.5, 1, 1, 4])
  })

  it('statistics scale with the magnitude of the pair scale', () => {
    expect(scaleStatistics(stats, small, Float64Array.of(-0.5, 2, 1, 4))).toEqual({
      pairNorm: Float32Array.of(8, 8, 0, 8),
      postRopeAbsMax: Float32Array.of(8, 2, 2, 7, 0, 8, 0, 2),
    })
  })

  it('pre-RoPE touches both rows of the pair in k, and the matching rows of every query head of the group', () => {
    const layer = randomLayer(small, 3, true)
    const { weights } = preRopeNormalization(layer, small, stats, { alpha: 8 })
    const row = (data: Float32Array, r: number) => data.slice(r * small.hiddenSize, (r + 1) * small.hiddenSize)
    const pairScale = [0.5, 2, 1, 4]
    for (let head = 0; head < 2; head++) {
      for (let d = 0; d < 4; d++) {
        const s = pairScale[head * 2 + (d % 2)]
        const key = head * 4 + d
        expect(row(weights.k.data, key)).toEqual(row(layer.k.data, key).map((w) => w * s))
        expect(weights.kBias![key]).toBe(layer.kBias![key] * s)
        for (const queryHead of [2 * head, 2 * head + 1]) {
          const query = queryHead * 4 + d
          expect(row(weights.q.data, query)).toEqual(row(layer.q.data, query).map((w) => w / s))
          expect(weights.qBias![query]).toBe(layer.qBias![query] / s)
        }
      }
    }
  })
})

describe.each(Object.entries(geometries))('keys measured again after smoothing: %s', (_, g) => {
  const [layer, x] = [randomLayer(g), randomTokens(g)]
  const before = measure(layer, g, x)
  const topK = 3
  const selected = selectOutlierPairs(before, g, topK)
  const handled = [...before.postRopeAbsMax.keys()].filter((channel) => {
    const head = Math.floor(channel / g.headDim)
    return selected.has((head * g.headDim) / 2 + (channel % (g.headDim / 2)))
  })

  it('pre-RoPE: every pair has the norm α, and scaleStatistics foretells it', () => {
    const { weights } = preRopeNormalization(layer, g, before, { alpha: 8 })
    const after = measure(weights, g, x)
    for (const norm of after.pairNorm) expect(norm).toBeCloseTo(8, 4)
    expectStatistics(after, scaleStatistics(before, g, preRopeScales(before, g, { alpha: 8 })))
  })

  it('pre- and post-RoPE: handled channels have the maximum β, other pairs the norm α', () => {
    const { weights, keyScale } = smoothLayer(layer, g, before, { preRope: { alpha: 8 }, postRope: { beta: 6, topK } })
    const after = measure(weights, g, x, keyScale)
    for (const channel of handled) expect(after.postRopeAbsMax[channel]).toBeCloseTo(6, 4)
    after.pairNorm.forEach((norm, pair) => {
      if (!selected.has(pair)) expect(norm).toBeCloseTo(8, 4)
      // What post-RoPE handles is left out of the folding: these rows are as they were.
      else expect(norm).toBeCloseTo(before.pairNorm[pair], 4)
    })
    expect(Math.max(...after.postRopeAbsMax)).toBeLessThan(8.001)
    expect(Math.max(...before.postRopeAbsMax)).toBeGreaterThan(20)
  })

  it('pre-RoPE alone takes all pairs, the outliers too', () => {
    const { weights, keyScale } = smoothLayer(layer, g, before, { preRope: { alpha: 8 } })
    expect(keyScale).toBeUndefined()
    for (const norm of measure(weights, g, x).pairNorm) expect(norm).toBeCloseTo(8, 4)
  })

  it('tied partners: handled channels end at or below β, and one of each pair at β', () => {
    const { weights } = tiedPartnerScaling(layer, g, before, { beta: 6, topK })
    const after = measure(weights, g, x)
    for (const channel of handled) expect(after.postRopeAbsMax[channel]).toBeLessThan(6.0001)
    expect(handled.filter((channel) => after.postRopeAbsMax[channel] > 5.9999).length).toBe(selected.size)
    expectStatistics(after, scaleStatistics(before, g, tiedPartnerScales(before, g, { beta: 6, topK })))
  })

  it('tied partners in a recipe need nothing at run time', () => {
    const recipe = { preRope: { alpha: 8 }, postRope: { beta: 6, topK, partners: 'tied' } } as const
    const after = smoothLayer(layer, g, before, recipe)
    expect(after.keyScale).toBeUndefined()
    expect(difference(layer, after, g, x)).toBeLessThan(1e-5)
    for (const channel of handled) expect(measure(after.weights, g, x).postRopeAbsMax[channel]).toBeLessThan(6.0001)
  })

  it('pre-RoPE twice, with the statistics carried along, is once with the second α', () => {
    const first = preRopeNormalization(layer, g, before, { alpha: 8 })
    const carried = scaleStatistics(before, g, preRopeScales(before, g, { alpha: 8 }))
    const twice = preRopeNormalization(first.weights, g, carried, { alpha: 5 })
    const once = preRopeNormalization(layer, g, before, { alpha: 5 })
    for (const name of ['q', 'k'] as const) {
      const expected = once.weights[name].data
      twice.weights[name].data.forEach((w, i) => {
        if (Math.abs(w - expected[i]) > 1e-6 * Math.abs(expected[i]))
          throw new Error(`${name}, ${i}: ${w}, ${expected[i]}`)
      })
    }
  })

  it('post-RoPE scaling of statistics carried over a pre-RoPE step that skipped nothing', () => {
    const pre = preRopeNormalization(layer, g, before, { alpha: 8 })
    const carried = scaleStatistics(before, g, preRopeScales(before, g, { alpha: 8 }))
    const { keyScale } = postRopeScaling(carried, g, { beta: 2, topK: g.headDim })
    const after = measure(pre.weights, g, x, keyScale)
    for (const max of after.postRopeAbsMax) expect(max).toBeCloseTo(2, 4)
    expect(difference(layer, { weights: pre.weights, keyScale }, g, x)).toBeLessThan(1e-5)
  })
})

function expectStatistics(received: KeyStatistics, expected: KeyStatistics): void {
  for (const name of ['pairNorm', 'postRopeAbsMax'] as const) {
    received[name].forEach((value, i) => {
      if (Math.abs(value - expected[name][i]) > 1e-5 * value) {
        throw new Error(`${name}[${i}]: expected ${expected[name][i]} but received ${value}`)
      }
    })
  }
}
