import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import * as formats from '../src/index.js'

/**
 * The independent truth: a format is the sorted list of its non-negative values, built from its parameters, and rounding
 * is the choice between the two neighbours by their midpoint (exact in float64), ties to the even code.
 */
interface Format {
  name: string
  codes: number
  signBit: number
  fractionBits: number
  bias: number
  /** Codes below this one are finite. */
  finiteCodes: number
  overflow: 'infinity' | 'saturate'
  nan: number
  encode(x: number): number
  decode(bits: number): number
  round(x: number): number
  encodeArray(x: Float32Array, out?: never): Uint16Array | Uint8Array
  decodeCodes(codes: number[]): Float32Array
  roundArray(x: Float32Array): void
}

const FORMATS: Format[] = [
  {
    name: 'bf16',
    codes: 65536,
    signBit: 0x8000,
    fractionBits: 7,
    bias: 127,
    finiteCodes: 0x7f80,
    overflow: 'infinity',
    nan: 0x7fc0,
    encode: formats.f32ToBf16Bits,
    decode: formats.bf16BitsToF32,
    round: formats.roundBf16,
    encodeArray: formats.encodeBf16,
    decodeCodes: (codes) => formats.decodeBf16(Uint16Array.from(codes)),
    roundArray: formats.roundBf16Array,
  },
  {
    name: 'f16',
    codes: 65536,
    signBit: 0x8000,
    fractionBits: 10,
    bias: 15,
    finiteCodes: 0x7c00,
    overflow: 'infinity',
    nan: 0x7e00,
    encode: formats.f32ToF16Bits,
    decode: formats.f16BitsToF32,
    round: formats.roundF16,
    encodeArray: formats.encodeF16,
    decodeCodes: (codes) => formats.decodeF16(Uint16Array.from(codes)),
    roundArray: formats.roundF16Array,
  },
  {
    name: 'e4m3',
    codes: 256,
    signBit: 0x80,
    fractionBits: 3,
    bias: 7,
    finiteCodes: 0x7f,
    overflow: 'saturate',
    nan: 0x7f,
    encode: formats.f32ToE4m3Bits,
    decode: formats.e4m3BitsToF32,
    round: formats.roundE4m3,
    encodeArray: formats.encodeE4m3,
    decodeCodes: (codes) => formats.decodeE4m3(Uint8Array.from(codes)),
    roundArray: formats.roundE4m3Array,
  },
]

/** The values of the finite non-negative codes, and last the value that would follow them. */
function magnitudes(format: Format): number[] {
  return Array.from({ length: format.finiteCodes + 1 }, (_, code) => {
    const exponent = code >> format.fractionBits
    const fraction = (code & ((1 << format.fractionBits) - 1)) / 2 ** format.fractionBits
    return exponent === 0 ? fraction * 2 ** (1 - format.bias) : (1 + fraction) * 2 ** (exponent - format.bias)
  })
}

function oracle(format: Format, values: number[], x: number): number {
  if (Number.isNaN(x)) return format.nan
  const sign = x < 0 || Object.is(x, -0) ? format.signBit : 0
  const magnitude = Math.abs(x)
  const last = values.length - 1
  let low = 0
  let high = last
  if (magnitude >= values[last]) low = last
  else {
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (values[middle] <= magnitude) low = middle
      else high = middle
    }
    const midpoint = (values[low] + values[low + 1]) / 2
    if (magnitude > midpoint || (magnitude === midpoint && low % 2 === 1)) low++
  }
  return sign | (format.overflow === 'saturate' ? Math.min(low, format.finiteCodes - 1) : low)
}

function neighbours(x: number): number[] {
  const float = Float32Array.of(x)
  const bits = new Int32Array(float.buffer)
  const center = bits[0]
  return [-1, 0, 1].map((step) => {
    bits[0] = center + step
    return float[0]
  })
}

for (const format of FORMATS) {
  const values = magnitudes(format)
  const name = format.name

  describe(name, () => {
    it('decodes every code to the value of its bits, and encodes it back', () => {
      const allCodes = Array.from({ length: format.codes }, (_, code) => code)
      const decoded = format.decodeCodes(allCodes)
      const encoded = format.encodeArray(decoded)
      const infinity = format.overflow === 'infinity' ? format.finiteCodes : -1
      for (const code of allCodes) {
        const magnitude = code & ~format.signBit
        const sign = code & format.signBit ? -1 : 1
        const isNaNCode = magnitude >= format.finiteCodes && magnitude !== infinity
        const value = isNaNCode ? Number.NaN : sign * (magnitude === infinity ? Infinity : values[magnitude])
        const back = isNaNCode ? format.nan : code
        if (
          !Object.is(decoded[code], value) ||
          !Object.is(format.decode(code), value) ||
          encoded[code] !== back ||
          format.encode(value) !== back ||
          !Object.is(format.round(value), value)
        ) {
          expect({ code, decoded: decoded[code], encoded: encoded[code] }).toEqual({
            code,
            decoded: value,
            encoded: back,
          })
          expect.fail(`code ${code}: the scalar functions differ from the array functions`)
        }
      }
    })

    it('rounds every midpoint and its float32 neighbours to nearest even', () => {
      const points: number[] = []
      for (let code = 0; code < values.length - 1; code++) {
        for (const x of neighbours((values[code] + values[code + 1]) / 2)) points.push(x, -x)
      }
      points.push(0, -0, 2 ** -149, -(2 ** -149), 3.4028234663852886e38, Infinity, -Infinity, Number.NaN)
      points.push(448, 463.99, 464, 464.01, 480, 65504, 65519.996, 65520, 65536, -464, -65520)
      check(format, values, Float32Array.from(points))
    })

    it('rounds random float32 bit patterns like the oracle', () => {
      const bits = new Uint32Array(1 << 18)
      let state = 12345
      for (let i = 0; i < bits.length; i++) {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0
        bits[i] = state
      }
      check(format, values, new Float32Array(bits.buffer))
      // Most random patterns lie outside of the small formats: once more within their range.
      const inRange = Float32Array.from(bits, (b, i) => (b / 2 ** 31 - 1) * 2 ** ((i % 48) - 30))
      check(format, values, inRange)
    })

    it('rounds a scalar to float32 first', () => {
      fc.assert(
        fc.property(fc.double(), (x) => {
          expect(format.encode(x)).toBe(oracle(format, values, Math.fround(x)))
          expect(format.round(x)).toBe(format.round(Math.fround(x)))
        }),
      )
      // Just above a tie in float64, a tie in float32: the even neighbour, not the upper one.
      const one = format.encode(1)
      const tie = 1 + 2 ** -(format.fractionBits + 1)
      expect(one % 2).toBe(0)
      expect(format.encode(tie + 2 ** -40)).toBe(one)
      expect(format.encode(tie + 2 ** -23)).toBe(one + 1)
    })

    it('works on views that do not start at the buffer', () => {
      const whole = Float32Array.from([9, 1.0009765625, -3.3, 1e-3, 9])
      const view = whole.subarray(1, 4)
      const expected = Array.from(view, (x) => format.encode(x))
      expect(Array.from(format.encodeArray(view))).toEqual(expected)
      format.roundArray(view)
      expect(Array.from(whole)).toEqual([9, ...expected.map((bits) => format.decode(bits)), 9])
    })
  })
}

function check(format: Format, values: number[], points: Float32Array): void {
  const encoded = format.encodeArray(points)
  const rounded = points.slice()
  format.roundArray(rounded)
  for (let i = 0; i < points.length; i++) {
    const expected = oracle(format, values, points[i])
    if (encoded[i] !== expected || format.encode(points[i]) !== expected) {
      expect({ x: points[i], code: encoded[i] }).toEqual({ x: points[i], code: expected })
      expect.fail(`encode(${points[i]}) as a scalar is ${format.encode(points[i])}, not ${expected}`)
    }
    if (!Object.is(rounded[i], format.decode(expected)) || !Object.is(format.round(points[i]), rounded[i])) {
      expect({ x: points[i], rounded: rounded[i] }).toEqual({ x: points[i], rounded: format.decode(expected) })
    }
  }
}

describe('outputs', () => {
  it('writes into the array given, and refuses another length', () => {
    const out = new Uint16Array(2)
    expect(formats.encodeBf16(Float32Array.of(1, -2), out)).toBe(out)
    expect(Array.from(out)).toEqual([0x3f80, 0xc000])
    const message = 'Expected 2 elements for the output of encodeE4m3 but received 3'
    expect(() => formats.encodeE4m3(new Float32Array(2), new Uint8Array(3))).toThrow(message)
    expect(() => formats.decodeF16(new Uint16Array(2), new Float32Array(1))).toThrow(
      'Expected 2 elements for the output of decodeF16 but received 1',
    )
  })

  it('knows the limits of E4M3', () => {
    expect([formats.roundE4m3(1e9), formats.roundE4m3(-Infinity)]).toEqual([448, -448])
    expect([formats.E4M3_MAX, formats.E4M3_LEAST]).toEqual([448, formats.e4m3BitsToF32(1)])
  })
})
