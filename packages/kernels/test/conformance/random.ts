import { f32ToBf16Bits, f32ToE4m3Bits, type Int4Tensor, roundBf16, roundE4m3, type Tensor } from '@fireq/formats'

/** A seeded generator (mulberry32). Suites take a fresh seed each time and print it when something fails. */
export class Random {
  #state: number

  constructor(readonly seed: number) {
    this.#state = seed >>> 0
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number in [from, to]. */
  int(from: number, to: number): number {
    return from + Math.floor(this.next() * (to - from + 1))
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next())
  }

  pick<T>(values: readonly T[]): T {
    return values[this.int(0, values.length - 1)]!
  }

  shuffle<T>(values: readonly T[]): T[] {
    const result = [...values]
    for (let i = result.length - 1; i > 0; i--) {
      const j = this.int(0, i)
      ;[result[i], result[j]] = [result[j]!, result[i]!]
    }
    return result
  }
}

export type Fill = 'normal' | 'zeros' | 'tiny' | 'outliers' | 'limits'
export const fills: readonly Fill[] = ['normal', 'zeros', 'tiny', 'outliers', 'limits']

/** Values that a buffer of this type can hold. */
export function values(
  random: Random,
  count: number,
  dtype: 'f32' | 'bf16' | 'e4m3' = 'f32',
  fill: Fill = 'normal',
): Float32Array {
  const round = dtype === 'f32' ? Math.fround : dtype === 'bf16' ? roundBf16 : roundE4m3
  return Float32Array.from({ length: count }, () => {
    switch (fill) {
      case 'normal':
        return round(random.normal())
      case 'zeros':
        return random.next() < 0.5 ? 0 : -0
      case 'tiny': // subnormal in E4M3, in BF16 and FP32, and nothing
        return round(random.normal() * random.pick([2 ** -8, 2 ** -130, 2 ** -140, 0]))
      case 'outliers':
        return round(random.normal() * (random.next() < 0.02 ? 300 : 0.05))
      case 'limits':
        return round(random.pick([448, -448, 2 ** -9, -(2 ** -9), 1, -1.0625, 0]))
    }
  })
}

export function dense(random: Random, shape: readonly number[], dtype: 'f32' | 'bf16' | 'f16' = 'f32'): Tensor {
  const count = shape.reduce((a, b) => a * b, 1)
  if (dtype === 'f32') return { kind: 'dense', dtype, shape, data: values(random, count) }
  if (dtype === 'bf16') {
    return {
      kind: 'dense',
      dtype,
      shape,
      data: Uint16Array.from({ length: count }, () => f32ToBf16Bits(random.normal())),
    }
  }
  // Any finite FP16 pattern of moderate size, subnormals included.
  const data = Uint16Array.from({ length: count }, () => random.int(0, 1) * 0x8000 + random.int(0, 0x4400))
  return { kind: 'dense', dtype, shape, data }
}

export interface Int4Options {
  readonly scale?: 'bf16' | 'e4m3' | 'f32'
  readonly channelScale?: boolean
  readonly lookupRounding?: boolean
}

/** Random codes, −8 included, with scales of either sign. */
export function int4(
  random: Random,
  [rows, columns]: readonly [number, number],
  groupSize: number,
  { scale = 'bf16', channelScale = false, lookupRounding = false }: Int4Options = {},
): Int4Tensor {
  const groups = (rows * columns) / groupSize
  const scales = Array.from({ length: groups }, () => random.normal() * random.pick([0.02, 0.02, 0.02, 3, 2 ** -9, 0]))
  return {
    kind: 'int4',
    shape: [rows, columns],
    groupSize,
    codes: Uint8Array.from({ length: Math.ceil((rows * columns) / 2) }, () => random.int(0, 255)),
    groupScale:
      scale === 'f32'
        ? { dtype: scale, data: Float32Array.from(scales) }
        : scale === 'bf16'
          ? { dtype: scale, data: Uint16Array.from(scales, f32ToBf16Bits) }
          : { dtype: scale, data: Uint8Array.from(scales, f32ToE4m3Bits) },
    ...(channelScale && { channelScale: Float32Array.from({ length: rows }, () => 2 ** -random.int(0, 14)) }),
    ...(lookupRounding && { lookupRounding }),
  }
}
