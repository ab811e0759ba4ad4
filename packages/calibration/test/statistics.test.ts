import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Accumulator, ChannelAccumulator, HistogramAccumulator, KeyAccumulator } from '../src/index.js'

const value = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1000, max: 1000 })
const matrix = (columns: number) =>
  fc.array(fc.array(value, { minLength: columns, maxLength: columns }), { minLength: 1, maxLength: 12 })

/** Feeds the rows in two batches, cut anywhere. */
function feed<T>(accumulator: Accumulator<T>, rows: number[][], cut: number): T {
  accumulator.add(Float32Array.from(rows.slice(0, cut).flat()))
  accumulator.add(Float32Array.from(rows.slice(cut).flat()))
  return accumulator.summary()
}

describe('ChannelAccumulator', () => {
  it('gives what one pass over all rows gives, however they are batched', () => {
    fc.assert(
      fc.property(matrix(3), fc.nat(12), (rows, cut) => {
        const { absMax, absMean, meanSquare, ...rest } = feed(new ChannelAccumulator(3), rows, cut)
        expect(rest.rows).toBe(rows.length)
        for (let c = 0; c < 3; c++) {
          const column = rows.map((row) => Math.abs(Math.fround(row[c]!)))
          expect(absMax[c]).toBe(Math.max(...column))
          const mean = column.reduce((a, b) => a + b) / rows.length
          const square = column.reduce((a, b) => a + b * b, 0) / rows.length
          expect(Math.abs(absMean[c]! - mean)).toBeLessThanOrEqual(1e-6 * mean + 1e-37)
          expect(Math.abs(meanSquare[c]! - square)).toBeLessThanOrEqual(1e-6 * square + 1e-37)
        }
      }),
    )
  })

  it('keeps an earlier summary as it was', () => {
    const statistics = new ChannelAccumulator(1)
    statistics.add(Float32Array.of(1))
    const before = statistics.summary()
    statistics.add(Float32Array.of(5))
    expect(before.absMax[0]).toBe(1)
    expect(statistics.summary().absMax[0]).toBe(5)
  })

  it.each([Number.NaN, Infinity, -Infinity])('refuses %s and says where', (bad) => {
    const statistics = new ChannelAccumulator(2)
    expect(() => statistics.add(Float32Array.of(1, 2, 3, bad))).toThrow(
      'Expected finite activations but channel 1 is not, within the first 2 rows',
    )
  })

  it('refuses broken rows and no channels', () => {
    expect(() => new ChannelAccumulator(2).add(new Float32Array(3))).toThrow('Expected rows of 2 values but received 3')
    expect(() => new ChannelAccumulator(0)).toThrow('number of channels but received 0')
  })
})

describe('KeyAccumulator', () => {
  it('takes the maximum of every channel and of every rotated pair', () => {
    fc.assert(
      fc.property(matrix(8), fc.nat(12), (rows, cut) => {
        const { postRopeAbsMax, pairNorm } = feed(new KeyAccumulator(2, 4), rows, cut)
        for (let c = 0; c < 8; c++)
          expect(postRopeAbsMax[c]).toBe(Math.max(...rows.map((row) => Math.abs(Math.fround(row[c]!)))))
        for (const [pair, i, j] of [
          [0, 0, 2],
          [1, 1, 3],
          [2, 4, 6],
          [3, 5, 7],
        ] as const) {
          // biome-ignore format: a table
          const norms = rows.map((row) => Math.hypot(Math.fround(row[i]!), Math.fround(row[j]!)))
          expect(pairNorm[pair]).toBeCloseTo(Math.max(...norms), 3)
        }
      }),
    )
  })

  it('has pair norms that a rotation leaves alone', () => {
    const keys = Float32Array.of(0.3, -2, 5, 1)
    const [cos, sin] = [Math.cos(1.2), Math.sin(1.2)]
    const rotated = Float32Array.of(
      keys[0]! * cos - keys[2]! * sin,
      keys[1]! * cos - keys[3]! * sin,
      keys[2]! * cos + keys[0]! * sin,
      keys[3]! * cos + keys[1]! * sin,
    )
    const norms = [keys, rotated].map((k) => feed(new KeyAccumulator(1, 4), [[...k]], 0).pairNorm)
    norms[0]!.forEach((norm, i) => {
      expect(norms[1]![i]).toBeCloseTo(norm, 5)
    })
  })

  it('refuses NaN and an odd headDim', () => {
    expect(() => new KeyAccumulator(1, 2).add(Float32Array.of(Number.NaN, 1))).toThrow('channel 0')
    expect(() => new KeyAccumulator(1, 3)).toThrow('Expected an even headDim but received 3')
  })
})

describe('HistogramAccumulator', () => {
  it('counts every value in the bin that holds it, four bins an octave', () => {
    fc.assert(
      fc.property(fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { maxLength: 50 }), (values) => {
        const histogram = new HistogramAccumulator()
        histogram.add(Float32Array.from(values))
        const { bins, zeros, count } = histogram.summary()
        expect(count).toBe(values.length)
        expect(zeros).toBe(values.filter((v) => v === 0).length)
        for (const { from, to, count } of bins) {
          expect(count).toBe(values.filter((v) => v !== 0 && Math.abs(v) >= from && Math.abs(v) < to).length)
        }
        bins.slice(1).forEach((bin, i) => {
          expect(bin.from).toBe(bins[i]!.to)
        })
      }),
      { numRuns: 30 },
    )
  })

  it('has edges at 1, 1.25, 1.5, 1.75 and 2', () => {
    const histogram = new HistogramAccumulator()
    histogram.add(Float32Array.of(1, -1.99, 0))
    expect(histogram.summary().bins).toEqual([
      { from: 1, to: 1.25, count: 1 },
      { from: 1.25, to: 1.5, count: 0 },
      { from: 1.5, to: 1.75, count: 0 },
      { from: 1.75, to: 2, count: 1 },
    ])
  })

  it('refuses infinities and NaN', () => {
    expect(() => new HistogramAccumulator().add(Float32Array.of(Infinity))).toThrow('Expected finite activations')
    expect(() => new HistogramAccumulator().add(Float32Array.of(Number.NaN))).toThrow('Expected finite activations')
  })
})
