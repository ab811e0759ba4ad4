import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { calibrationWindows } from '../src/index.js'

const stream = Int32Array.from({ length: 1000 }, (_, i) => i)

describe('calibrationWindows', () => {
  it('gives different windows of the stream, each whole and aligned', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(100), fc.integer(), (length, wanted, seed) => {
        const count = 1 + (wanted % Math.floor(1000 / length))
        const windows = calibrationWindows(stream, { count, length, seed })
        const starts = windows.map((window) => window[0]!)
        expect(new Set(starts).size).toBe(count)
        for (const [i, window] of windows.entries()) {
          expect(starts[i]! % length).toBe(0)
          expect([...window]).toEqual(Array.from({ length }, (_, t) => starts[i]! + t))
        }
      }),
    )
  })

  it('repeats itself for a seed, differs for another, and does not take the first windows', () => {
    const starts = (seed: number) => calibrationWindows(stream, { count: 5, length: 10, seed }).map((w) => w[0])
    expect(starts(7)).toEqual(starts(7))
    expect(starts(7)).not.toEqual(starts(8))
    expect(starts(7)).not.toEqual([0, 10, 20, 30, 40])
  })

  it('draws every window about equally often', () => {
    const hits = new Array(10).fill(0)
    for (let seed = 0; seed < 2000; seed++) {
      for (const window of calibrationWindows(stream.subarray(0, 10), { count: 3, length: 1, seed })) hits[window[0]!]++
    }
    // 600 expected; the standard deviation is √(2000 · 0.3 · 0.7) = 20.5
    for (const count of hits) expect(Math.abs(count - 600)).toBeLessThan(5 * 20.5)
  })

  it('refuses a stream that is too short, and counts that are no counts', () => {
    expect(() => calibrationWindows(stream, { count: 11, length: 100 })).toThrow(
      'Expected at least 1100 tokens for 11 calibration windows of 100 but received 1000',
    )
    expect(() => calibrationWindows(stream, { count: 0, length: 100 })).toThrow('windows but received 0')
    expect(() => calibrationWindows(stream, { count: 1, length: 1.5 })).toThrow('window but received 1.5')
  })
})
