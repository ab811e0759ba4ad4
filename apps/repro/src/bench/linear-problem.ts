import { bf16BitsToF32, decodeE4m3, encodeBf16, f32ToBf16Bits, f32ToE4m3Bits, type Int4Tensor } from '@fireq/formats'

/** E4M3 codes of a normal distribution: activations repeat them, at a length that isn't a multiple of any K. */
const PATTERN = 4_000_037

/** Numbers in [0, 1) from a seed. */
function uniform(seed: number): () => number {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) / 2 ** 32
  }
}

/** Random codes −7…7 or −8…7 in groups of 128, BF16 scales of about 0.01. */
export function randomWeight(n: number, k: number, codes: 'sym' | 'full', seed: number): Int4Tensor {
  const next = uniform(seed)
  const table = new Uint8Array(256)
  const bytes = new Uint8Array((n * k) / 2)
  const [least, count] = codes === 'sym' ? [1, 15] : [0, 16]
  for (let i = 0; i < 256; i++) table[i] = (least + (i % count)) | ((least + (Math.floor(i / count) % count)) << 4)
  const last = count * count - 1
  for (let i = 0; i < bytes.length; i++) bytes[i] = table[Math.floor(next() * (last + 1))]!
  const data = Uint16Array.from({ length: (n * k) / 128 }, () => f32ToBf16Bits((0.5 + next()) * 0.01))
  return { kind: 'int4', shape: [n, k], groupSize: 128, codes: bytes, groupScale: { dtype: 'bf16', data } }
}

let pattern: Uint8Array | undefined

/** The repeating part of any activation, row after row. */
export function activationPattern(): Uint8Array {
  if (pattern === undefined) {
    const next = uniform(7)
    const normals = Uint8Array.from({ length: 1 << 16 }, () => {
      const radius = Math.sqrt(-2 * Math.log(1 - next()))
      return f32ToE4m3Bits(radius * Math.cos(2 * Math.PI * next()) * 110)
    })
    pattern = Uint8Array.from({ length: PATTERN }, () => normals[Math.floor(next() * normals.length)]!)
  }
  return pattern
}

/** The same as BF16 of about 0.01 to 1. */
export function bf16Pattern(): Uint16Array {
  return encodeBf16(decodeE4m3(activationPattern()).map((value) => value / 448))
}

export function tokenScales(m: number): Float32Array {
  const next = uniform(m + 1)
  return Float32Array.from({ length: m }, () => (0.5 + next()) / 100)
}

/** ‖out − exact‖ / ‖exact‖ in float64 over some tokens and features. `outAt` gives BF16 bits. */
export function sampledError(
  tensor: Int4Tensor,
  m: number,
  xScale: Float32Array,
  rows: readonly number[],
  outAt: (row: number, feature: number) => number,
): number {
  const [n, k] = tensor.shape
  const codesOfX = activationPattern()
  const x = rows.map((row) =>
    Float64Array.from(decodeE4m3(Uint8Array.from({ length: k }, (_, i) => codesOfX[(row * k + i) % PATTERN]!))),
  )
  const features = spread(n, 48)
  let errors = 0
  let squares = 0
  const w = new Float64Array(k)
  for (const feature of features) {
    for (let i = 0; i < k; i++) {
      const at = feature * k + i
      const code = ((tensor.codes[at >> 1]! >> (at & 1 ? 4 : 0)) & 15) - 8
      w[i] = code * bf16BitsToF32(tensor.groupScale.data[at >> 7]!)
    }
    rows.forEach((row, r) => {
      let sum = 0
      for (let i = 0; i < k; i++) sum += x[r]![i]! * w[i]!
      const exact = sum * xScale[row]!
      errors += (bf16BitsToF32(outAt(row, feature)) - exact) ** 2
      squares += exact ** 2
    })
  }
  if (rows.some((row) => row >= m)) throw new RangeError(`Expected rows below ${m} for a sampled error`)
  return Math.sqrt(errors / squares)
}

/** At most `wanted` of 0 … count − 1, evenly, both ends among them. */
export function spread(count: number, wanted: number): number[] {
  const most = Math.min(count, wanted)
  return Array.from({ length: most }, (_, i) => (most === 1 ? 0 : Math.floor((i * (count - 1)) / (most - 1))))
}
