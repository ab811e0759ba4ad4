import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  decodeBf16,
  dequantizeInt4,
  encodeBf16,
  int4Codes,
  quantizeInt4,
  roundBf16,
  vllmSafeScales,
  vllmW4A8Load,
} from '../src/index.js'

/** Rows of scales whose magnitudes span `low`…`high` as powers of two, of either sign. */
const scaleRows = (low: number, high: number) =>
  fc.record({ N: fc.integer({ min: 1, max: 4 }), groups: fc.integer({ min: 1, max: 6 }) }).chain(({ N, groups }) =>
    fc
      .array(fc.tuple(fc.integer({ min: low * 1000, max: high * 1000 }), fc.boolean()), {
        minLength: N * groups,
        maxLength: N * groups,
      })
      .map((entries) => ({
        N,
        groups,
        scales: Float32Array.from(entries, ([e, negative]) => (negative ? -1 : 1) * 2 ** (e / 1000)),
      })),
  )

describe('vllmW4A8Load', () => {
  it('follows the load path, worked by hand', () => {
    // Row 0: c = 448/448 = 1; 1.0625 ties to 1; E4M3(1/8) is exact. Row 1: c = 1; 11.625·2⁻⁹ → 12·2⁻⁹, an eighth of it is
    // 1.5·2⁻⁹ and ties to 2·2⁻⁹ (rounded once, it would be 1.45·2⁻⁹ → 2⁻⁹).
    const load = vllmW4A8Load(encodeBf16(Float32Array.of(448, 1.0625, 448, -11.625 * 2 ** -9)), 2, 2)
    expect(Array.from(load.channelScale)).toEqual([8, 8])
    expect(Array.from(load.effective)).toEqual([448, 1, 448, -16 * 2 ** -9])
    expect(Array.from(load.groupScale)).toEqual([0x66, 0x20, 0x66, 0x82])
  })

  it('has the floor 1/(448·512) for the factor of a row', () => {
    const load = vllmW4A8Load(encodeBf16(Float32Array.of(0)), 1, 1)
    expect(load.channelScale[0]).toBe(Math.fround(8 / (448 * 512)))
    expect(load.effective[0]).toBe(0)
  })

  it('names a scale that is not finite, and a wrong count', () => {
    expect(() => vllmW4A8Load(encodeBf16(Float32Array.of(1, NaN)), 2, 1)).toThrow('received NaN at row 1, group 0')
    expect(() => vllmW4A8Load(new Uint16Array(3), 2, 2)).toThrow(
      'Expected 4 scales for 2 rows of 2 groups but received 3',
    )
  })
})

describe('vllmSafeScales', () => {
  it('survives the load unchanged', () => {
    fc.assert(
      fc.property(scaleRows(-9, 8), ({ scales, N, groups }) => {
        const safe = vllmSafeScales(scales, N, groups)
        expect(vllmW4A8Load(safe, N, groups).effective).toEqual(decodeBf16(safe))
      }),
      { numRuns: 500 },
    )
  })

  it('is within 1/16 of every scale that is not far below its row’s largest', () => {
    fc.assert(
      fc.property(scaleRows(-9, 8), ({ scales, N, groups }) => {
        const safe = decodeBf16(vllmSafeScales(scales, N, groups))
        for (let row = 0; row < N; row++) {
          const max = Math.max(...scales.subarray(row * groups, (row + 1) * groups).map(Math.abs))
          for (let i = row * groups; i < (row + 1) * groups; i++) {
            // E4M3's normal range is 2⁻⁶…56, so from max/3584 on the rounding is relative.
            if (Math.abs(scales[i]) < max / 3000) continue
            expect(Math.abs(safe[i] / scales[i] - 1)).toBeLessThanOrEqual(1 / 16)
          }
        }
      }),
    )
  })

  it('is what vLLM will use, rounded to BF16, for rows below the floor', () => {
    fc.assert(
      fc.property(scaleRows(-40, -9.01), ({ scales, N, groups }) => {
        const safe = vllmSafeScales(scales, N, groups)
        const { effective } = vllmW4A8Load(safe, N, groups)
        expect(effective.map(roundBf16)).toEqual(decodeBf16(safe))
      }),
      { numRuns: 500 },
    )
  })

  it('lets no scale of a row pass the pinned one', () => {
    // 1.06 becomes the factor 1, and 1.055·56 = 59.08 would round to 60.
    const safe = vllmSafeScales(Float32Array.of(1.06 * 448, -1.055 * 448), 1, 2)
    expect(Array.from(decodeBf16(safe))).toEqual([448, -448])
  })

  it('keeps a zero row finite', () => {
    const safe = decodeBf16(vllmSafeScales(new Float32Array(2), 1, 2))
    expect(safe[0]).toBeGreaterThan(0)
    expect(safe[0]).toBeLessThan(1e-6)
  })
})

describe('quantizeInt4 with vllmScales', () => {
  it('gives the weights that vLLM computes with', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 32, maxLength: 32 }),
        (weights) => {
          const tensor = quantizeInt4(Float32Array.from(weights), [2, 16], {
            groupSize: 4,
            scale: 'bf16',
            vllmScales: true,
          })
          const stored = tensor.groupScale.data as Uint16Array
          const { effective } = vllmW4A8Load(stored, 2, 4)
          const codes = int4Codes(tensor)
          const loaded = Float32Array.from(codes, (code, i) => code * roundBf16(effective[i >> 2]!))
          expect(dequantizeInt4(tensor)).toEqual(loaded)
        },
      ),
    )
  })

  it('asks for BF16 scales', () => {
    const options = { groupSize: 4, scale: 'e4m3', vllmScales: true } as const
    expect(() => quantizeInt4(new Float32Array(4), [1, 4], options)).toThrow(
      'Expected bf16 scales for vLLM but received e4m3',
    )
  })
})
