import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  chooseTensorScale,
  concatRows,
  decodeScales,
  dequantizeInt4,
  encodeScales,
  f32ToBf16Bits,
  foldedScaleBf16,
  fromCompressedTensors,
  type Int4Options,
  type Int4Tensor,
  int4Code,
  int4Codes,
  packInt4,
  quantizeInt4,
  quantizeInt4WithScales,
  roundE4m3,
  type ScaleDType,
  toFloat32,
  toWeightPacked,
  unpackInt4,
} from '../src/index.js'

const code = fc.integer({ min: -8, max: 7 })

/** A finite float32, of any magnitude up to `limit` (subnormals too). */
const weight = (limit: number) =>
  fc.oneof(
    fc.float({ min: Math.fround(-limit), max: Math.fround(limit), noNaN: true }),
    // Most bit patterns are far apart; these are near enough to share a group.
    fc.integer({ min: -1000, max: 1000 }).map((n) => Math.fround((n * limit) / 1000)),
  )

/** A matrix [N, K] with the groups it is cut into. */
const matrix = (limit: number) =>
  fc
    .record({
      N: fc.integer({ min: 1, max: 4 }),
      groups: fc.integer({ min: 1, max: 3 }),
      groupSize: fc.constantFrom(2, 6, 8, 16),
    })
    .chain(({ N, groups, groupSize }) =>
      fc
        .array(weight(limit), { minLength: N * groups * groupSize, maxLength: N * groups * groupSize })
        .map((values) => ({
          weights: Float32Array.from(values),
          shape: [N, groups * groupSize] as [number, number],
          groupSize,
        })),
    )

describe('packing', () => {
  it('puts code + 8 of even elements in the low nibble', () => {
    expect(Array.from(packInt4(Int8Array.of(-8, 7, 0, -1)))).toEqual([0xf0, 0x78])
  })

  it('round-trips', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(code, code)), (pairs) => {
        const codes = Int8Array.from(pairs.flat())
        expect(unpackInt4(packInt4(codes))).toEqual(codes)
      }),
    )
    const everyByte = Uint8Array.from({ length: 256 }, (_, i) => i)
    expect(packInt4(unpackInt4(everyByte))).toEqual(everyByte)
  })

  it('names a code out of range and an odd length', () => {
    const message = (index: number, value: number) =>
      `Expected a code from -8 to 7 at index ${index} for packInt4 but received ${value}`
    expect(() => packInt4(Int8Array.of(0, 0, 8, 0))).toThrow(message(2, 8))
    expect(() => packInt4(Int8Array.of(0, -9))).toThrow(message(1, -9))
    expect(() => packInt4(Int8Array.of(0))).toThrow('Expected an even number of codes for packInt4 but received 1')
  })
})

describe('quantizeInt4, worked by hand', () => {
  it('takes σ = max|w|/7 and rounds half to even', () => {
    // σ = 3.5/7 = 0.5, quotients 7, −7, 1, 0.5 → 0, 1.5 → 2, −2.5 → −2, 0.5 → 0, 0
    const weights = Float32Array.of(3.5, -3.5, 0.5, 0.25, 0.75, -1.25, 0.25, 0)
    for (const scale of ['bf16', 'e4m3', 'f32'] as ScaleDType[]) {
      const t = quantizeInt4(weights, [1, 8], { groupSize: 8, scale })
      expect(Array.from(int4Codes(t))).toEqual([7, -7, 1, 0, 2, -2, 0, 0])
      expect(Array.from(decodeScales(t.groupScale))).toEqual([0.5])
      expect(Array.from(dequantizeInt4(t))).toEqual([3.5, -3.5, 0.5, 0, 1, -1, 0, 0])
    }
  })

  it('computes the codes from the rounded scale', () => {
    // 1/7 = 0.142857… → E4M3 0.140625 (1.125·2⁻³): 0.5/0.140625 = 3.556 → 4, where 0.5/(1/7) = 3.5 → 4 too, and
    // 0.49/0.140625 = 3.48 → 3; 1/0.140625 = 7.11 → 7.
    const t = quantizeInt4(Float32Array.of(1, 0.5, 0.49, -0.35), [2, 2], { groupSize: 2, scale: 'e4m3' })
    // The second row's σ = 0.07 → 0.0703125 (1.125·2⁻⁴): 0.49/0.0703125 = 6.97 → 7, −0.35/0.0703125 = −4.98 → −5.
    expect(Array.from(decodeScales(t.groupScale))).toEqual([0.140625, 0.0703125])
    expect(Array.from(int4Codes(t))).toEqual([7, 4, 7, -5])
  })

  it('keeps the sign of a negative scale', () => {
    const search = () => -0.5
    for (const scale of ['bf16', 'e4m3', 'f32'] as ScaleDType[]) {
      const t = quantizeInt4(Float32Array.of(4, -3.5, 1, -0.75), [1, 4], { groupSize: 4, scale, search })
      expect(Array.from(decodeScales(t.groupScale))).toEqual([-0.5])
      expect(Array.from(int4Codes(t))).toEqual([-8, 7, -2, 2])
      expect(Array.from(dequantizeInt4(t))).toEqual([4, -3.5, 1, -1])
    }
  })

  it('clips where an E4M3 scale was rounded down far', () => {
    // a/7 = 1.49·2⁻⁹ → σ = 2⁻⁹: the quotient 10.43 clips to 7, −10.43 to −8.
    const a = 7 * 1.49 * 2 ** -9
    const t = quantizeInt4(Float32Array.of(a, -a), [1, 2], { groupSize: 2, scale: 'e4m3' })
    expect(Array.from(decodeScales(t.groupScale))).toEqual([2 ** -9])
    expect(Array.from(int4Codes(t))).toEqual([7, -8])
  })

  it('gives zeros a scale that can be divided by', () => {
    const zeros = new Float32Array(4)
    const scales = { e4m3: 2 ** -9, f32: Math.fround(1e-5 / 7), bf16: 1.430511474609375e-6 }
    for (const scale of ['bf16', 'e4m3', 'f32'] as ScaleDType[]) {
      const t = quantizeInt4(zeros, [1, 4], { groupSize: 4, scale })
      expect(decodeScales(t.groupScale)[0]).toBe(scales[scale])
      expect(dequantizeInt4(t)).toEqual(zeros)
    }
  })

  it('multiplies by the tensor scale first and undoes it in the channel scale', () => {
    // 0.01·2⁴ = 0.16, /7 = 0.022857 → E4M3 0.0234375 (1.5·2⁻⁶): quotients 6.83 → 7, −2.05 → −2.
    const t = quantizeInt4(Float32Array.of(0.01, -0.003), [1, 2], { groupSize: 2, scale: 'e4m3', tensorScale: 4 })
    expect(Array.from(decodeScales(t.groupScale))).toEqual([0.0234375])
    expect(Array.from(t.channelScale!)).toEqual([1 / 16])
    expect(Array.from(int4Codes(t))).toEqual([7, -2])
    expect(dequantizeInt4(t)[0]).toBe((7 * 0.0234375) / 16)
  })

  it('rounds q·σ to E4M3 with look-up rounding only', () => {
    // σ = 1.125: 3·1.125 = 3.375 → 3.5 (a tie between 3.25 and 3.5: even significand 14), 7·1.125 = 7.875 → 8.
    const make = (lookupRounding: boolean): Int4Tensor =>
      quantizeInt4WithScales(Float32Array.of(3.4, 7.9), [1, 2], 2, encodeScales(Float32Array.of(1.125), 'e4m3'), {
        channelScale: Float32Array.of(1),
        lookupRounding,
      })
    expect(Array.from(dequantizeInt4(make(false)))).toEqual([3.375, 7.875])
    expect(Array.from(dequantizeInt4(make(true)))).toEqual([3.5, 8])
  })
})

describe('quantizeInt4, properties', () => {
  const half = (scale: number) => (Math.abs(scale) / 2) * (1 + 2 ** -20)

  it('is off by at most σ/2, and clips only past −8σ and 7σ', () => {
    for (const scale of ['bf16', 'e4m3', 'f32'] as ScaleDType[]) {
      fc.assert(
        fc.property(matrix(scale === 'e4m3' ? 3136 : 3e38), ({ weights, shape, groupSize }) => {
          const t = quantizeInt4(weights, shape, { groupSize, scale })
          const scales = decodeScales(t.groupScale)
          const codes = int4Codes(t)
          const values = dequantizeInt4(t)
          weights.forEach((w, i) => {
            const s = scales[Math.floor(i / groupSize)]
            const error = Math.abs(w - codes[i] * s)
            if (error > half(s)) expect([codes[i] === 7 && w > 7 * s, codes[i] === -8 && w < -8 * s]).toContain(true)
            expect(values[i]).toBe(Math.fround(codes[i] * s))
            expect(codes[i]).toBeGreaterThanOrEqual(-8)
            expect(codes[i]).toBeLessThanOrEqual(7)
          })
        }),
      )
    }
  })

  it('takes negative scales and uses −8', () => {
    fc.assert(
      fc.property(matrix(1000), ({ weights, shape, groupSize }) => {
        // The largest magnitude becomes code −8, whatever its sign.
        const search: Int4Options['search'] = (w, start, end) => {
          let largest = 0
          for (let i = start; i < end; i++) if (Math.abs(w[i]) > Math.abs(largest)) largest = w[i]
          return Math.abs(largest) < 1e-5 ? 1e-5 : -largest / 8
        }
        const t = quantizeInt4(weights, shape, { groupSize, scale: 'f32', search })
        const scales = decodeScales(t.groupScale)
        const codes = int4Codes(t)
        weights.forEach((w, i) => {
          const s = scales[Math.floor(i / groupSize)]
          if (Math.abs(w) > 1e-5 && Math.abs(w / s) > 7.9999) expect(Math.abs(codes[i])).toBeGreaterThanOrEqual(7)
          if (codes[i] !== 7) expect(Math.abs(w - codes[i] * s)).toBeLessThanOrEqual(half(s))
        })
        const values = dequantizeInt4(t)
        codes.forEach((q, i) => {
          expect(values[i]).toBe(Math.fround(q * scales[Math.floor(i / groupSize)]))
        })
      }),
    )
  })

  it('rounds the quotient to float32 first', () => {
    // The quotient is 3.5 − 0.25 ulp: a tie in float32, to 4.
    expect(int4Code(3.5 + 5 * 2 ** -22, 1 + 3 * 2 ** -23)).toBe(4)
    expect(int4Code(3.5 + 4 * 2 ** -22, 1 + 3 * 2 ** -23)).toBe(3)
  })

  it('gives the nearest code', () => {
    fc.assert(
      fc.property(weight(1e6), weight(1e4), (w, s) => {
        fc.pre(Math.abs(s) > 1e-20)
        const q = int4Code(w, s)
        const best = Math.min(...Array.from({ length: 16 }, (_, i) => Math.abs(w - (i - 8) * s)))
        expect(Math.abs(w - q * s)).toBeLessThanOrEqual(best + Math.abs(s) * 2 ** -21)
        expect(Object.is(q, -0)).toBe(false)
      }),
    )
  })
})

describe('quantizeInt4, errors', () => {
  const quantize = (weights: number[], shape: [number, number], options: Partial<Int4Options> = {}) =>
    quantizeInt4(Float32Array.from(weights), shape, { groupSize: 2, scale: 'bf16', ...options })

  it.each<[string, () => unknown, string]>([
    ['NaN', () => quantize([0, 0, 0, NaN], [2, 2]), 'received NaN at index 3 (row 1, column 1)'],
    ['Infinity', () => quantize([0, -Infinity], [1, 2]), 'received -Infinity at index 1 (row 0, column 1)'],
    ['a wrong count', () => quantize([1], [1, 2]), 'Expected 2 weights for the shape [1,2] but received 1'],
    ['a group that does not divide K', () => quantize([1, 1, 1], [1, 3]), 'an even group size that divides K=3'],
    ['an odd group', () => quantize([1, 1, 1], [1, 3], { groupSize: 3 }), 'K=3 but received 3'],
    ['an empty shape', () => quantize([], [0, 2]), 'Expected a shape [N, K] of positive integers but received [0,2]'],
    [
      'weights too large for E4M3 scales',
      () => quantize([1, 1, 4000, 1], [2, 2], { scale: 'e4m3' }),
      'Expected a group scale that e4m3 can hold but received 571.42',
    ],
    ['the place of it', () => quantize([1, 1, 4000, 1], [2, 2], { scale: 'e4m3' }), '(row 1, group 0)'],
    [
      'a tensor scale with BF16',
      () => quantize([1, 1], [1, 2], { tensorScale: 'auto' }),
      'Expected no tensor scale with bf16 scales but received auto',
    ],
    [
      'a tensor scale of 15',
      () => quantize([1, 1], [1, 2], { scale: 'e4m3', tensorScale: 15 }),
      "Expected an integer from 0 to 14 for the tensor scale's exponent but received 15",
    ],
    [
      'an unknown search',
      () => quantize([1, 1], [1, 2], { search: 'toString' as 'absmax' }),
      'Expected a scale search (absmax) but received toString',
    ],
    [
      'a search that returns 0',
      () => quantize([1, 1], [1, 2], { search: () => 0 }),
      'Expected a group scale that bf16 can hold but received 0 (row 0, group 0)',
    ],
  ])('refuses %s', (_, act, message) => {
    expect(act).toThrow(message)
  })
})

describe('chooseTensorScale', () => {
  const choose = (weights: number[]) => chooseTensorScale(Float32Array.from(weights), [1, weights.length], 2)

  it('takes the smallest exponent without underflow', () => {
    // 7·2⁻⁹ = 0.01367…: 0.001·2^4 = 0.016 is the first above.
    expect(choose([1, 0, 0.001, 0])).toBe(4)
    expect(choose([1, 0, 0.02, 0])).toBe(0)
    expect(choose([0, 0, 0, 0])).toBe(0)
  })

  it('stops before a group passes 448', () => {
    // 100·2² = 400 is the last.
    expect(choose([100, 0, 1e-6, 0])).toBe(2)
    expect(choose([224, 0, 1e-6, 0])).toBe(1)
    expect(choose([448, 0, 1e-6, 0])).toBe(0)
    expect(choose([1000, 0, 1e-6, 0])).toBe(0)
    expect(choose([1e-3, 0, 1e-9, 0])).toBe(14)
  })

  it('agrees with the definition written out', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: -25, max: 9, noNaN: true }), { minLength: 1, maxLength: 8 }),
        (exponents) => {
          const amaxes = exponents.map((e) => Math.fround(2 ** e))
          const slack = (i: number) =>
            amaxes.reduce((sum, a) => sum + Math.max(0, 7 * 2 ** -9 - a * 2 ** i) / (7 * 2 ** -9), 0)
          const allowed = Array.from({ length: 15 }, (_, i) => i).filter(
            (i) => i === 0 || amaxes.every((a) => a * 2 ** i <= 448),
          )
          const least = Math.min(...allowed.map(slack))
          const expected = allowed.find((i) => slack(i) === least)
          expect(choose(amaxes.flatMap((a) => [0, -a]))).toBe(expected)
        },
      ),
    )
  })

  it('is what `auto` uses', () => {
    const t = quantizeInt4(Float32Array.of(1, 0, 0.001, 0), [1, 4], {
      groupSize: 2,
      scale: 'e4m3',
      tensorScale: 'auto',
    })
    expect(Array.from(t.channelScale!)).toEqual([1 / 16])
  })
})

describe('concatRows', () => {
  const weights = Float32Array.from({ length: 32 }, (_, i) => Math.sin(i) / 100)
  const options: Int4Options = { groupSize: 4, scale: 'e4m3' }

  it('stacks INT4 tensors whose channel scales differ', () => {
    const q = quantizeInt4(weights.subarray(0, 16), [2, 8], { ...options, tensorScale: 5 })
    const k = quantizeInt4(weights.subarray(16, 24), [1, 8], options)
    const v = quantizeInt4(weights.subarray(24, 32), [1, 8], { ...options, tensorScale: 3 })
    const all = concatRows([q, k, v])
    expect(all.shape).toEqual([4, 8])
    expect(Array.from((all as Int4Tensor).channelScale!)).toEqual([1 / 32, 1 / 32, 1, 1 / 8])
    expect(Array.from(toFloat32(all))).toEqual([q, k, v].flatMap((t) => Array.from(dequantizeInt4(t))))
    expect((concatRows([k, k]) as Int4Tensor).channelScale).toBeUndefined()
  })

  it('stacks dense tensors', () => {
    const a = { kind: 'dense', dtype: 'f32', shape: [1, 2], data: Float32Array.of(1, 2) } as const
    const b = { kind: 'dense', dtype: 'f32', shape: [2, 2], data: Float32Array.of(3, 4, 5, 6) } as const
    expect(concatRows([a, b])).toEqual({
      kind: 'dense',
      dtype: 'f32',
      shape: [3, 2],
      data: Float32Array.of(1, 2, 3, 4, 5, 6),
    })
    const bias = { kind: 'dense', dtype: 'bf16', shape: [1], data: Uint16Array.of(0x3f80) } as const
    expect(Array.from(toFloat32(concatRows([bias, bias])))).toEqual([1, 1])
  })

  it('names what does not fit', () => {
    const int4 = quantizeInt4(weights.subarray(0, 8), [1, 8], options)
    const other = quantizeInt4(weights.subarray(0, 8), [1, 8], { ...options, scale: 'bf16' })
    const dense = { kind: 'dense', dtype: 'f16', shape: [1, 8], data: new Uint16Array(8) } as const
    expect(() => concatRows([int4, other])).toThrow(
      'Expected int4 rows of 8 in groups of 4 with e4m3 scales for tensor 1 of concatRows but received int4 rows of 8 in groups of 4 with bf16 scales',
    )
    expect(() => concatRows([dense, int4])).toThrow('Expected f16 rows of shape [8] for tensor 1 of concatRows')
    expect(() => concatRows([])).toThrow('Expected at least one tensor for concatRows but received none')
    expect(() => concatRows([{ ...dense, data: new Uint16Array(7) }])).toThrow('Expected 8 elements for tensor 0')
  })
})

describe('compressed-tensors arrays', () => {
  const weights = Float32Array.from({ length: 64 }, (_, i) => Math.cos(i * i) / 50)

  it('packs eight codes a word, the first in the lowest bits', () => {
    const codes = packInt4(Int8Array.of(-8, -7, -6, -5, -4, -3, -2, -1))
    const t: Int4Tensor = {
      kind: 'int4',
      shape: [1, 8],
      groupSize: 8,
      codes,
      groupScale: encodeScales(Float32Array.of(1), 'bf16'),
    }
    expect(toWeightPacked(t)[0]).toBe(0x76543210)
    const shifted = new Uint8Array(5)
    shifted.set(codes, 1)
    expect(toWeightPacked({ ...t, codes: shifted.subarray(1) })[0]).toBe(0x76543210)
  })

  it('round-trips, tensor scale and all', () => {
    for (const options of [
      { groupSize: 8, scale: 'bf16' },
      { groupSize: 8, scale: 'e4m3', tensorScale: 6 },
      { groupSize: 8, scale: 'e4m3', lookupRounding: true },
    ] as Int4Options[]) {
      const t = quantizeInt4(weights, [4, 16], options)
      const back = fromCompressedTensors({
        weightPacked: toWeightPacked(t),
        weightScale: foldedScaleBf16(t),
        shape: [4, 16],
        groupSize: 8,
        tensorScaleExponent: typeof options.tensorScale === 'number' ? options.tensorScale : 0,
        scaleDType: options.scale,
        lookupRounding: options.lookupRounding,
      })
      expect(back).toEqual(t)
    }
  })

  it('refuses what BF16 or E4M3 does not hold, and wrong sizes', () => {
    const f32 = quantizeInt4(weights, [4, 16], { groupSize: 8, scale: 'f32' })
    expect(() => foldedScaleBf16(f32)).toThrow('Expected a scale that BF16 holds exactly at row 0, group 0')
    const t = quantizeInt4(weights, [4, 16], { groupSize: 8, scale: 'bf16' })
    const parts = { weightPacked: toWeightPacked(t), weightScale: foldedScaleBf16(t), groupSize: 8 }
    expect(() => fromCompressedTensors({ ...parts, shape: [4, 16], scaleDType: 'e4m3' })).toThrow(
      'Expected a finite scale that e4m3 holds exactly at row 0, group 0',
    )
    expect(() => fromCompressedTensors({ ...parts, shape: [4, 32] })).toThrow(
      'Expected 64 bytes of codes for the compressed tensor of shape [4,32] but received 32',
    )
    const notFinite = { ...parts, shape: [4, 16] as [number, number], weightScale: parts.weightScale.slice() }
    notFinite.weightScale[3] = f32ToBf16Bits(NaN)
    expect(() => fromCompressedTensors(notFinite)).toThrow('row 1, group 1 but received NaN')
  })
})

describe('look-up rounding', () => {
  it('is E4M3 of every product', () => {
    fc.assert(
      fc.property(matrix(100), ({ weights, shape, groupSize }) => {
        const t = quantizeInt4(weights, shape, { groupSize, scale: 'e4m3', tensorScale: 2, lookupRounding: true })
        const scales = decodeScales(t.groupScale)
        const values = dequantizeInt4(t)
        int4Codes(t).forEach((q, i) => {
          expect(values[i]).toBe(roundE4m3(q * scales[Math.floor(i / groupSize)]) / 4 + 0)
        })
      }),
    )
  })
})
