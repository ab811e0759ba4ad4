import { bf16BitsToF32, decodeE4m3 } from '@fireq/formats'

// Where codes and scales lie in a page of one key-value head, from the text of kernels/cuda/kv_layout.cuh alone.

const TOKENS = 64
const CHANNELS = 128
const BLOCK_TOKENS = 32
const BLOCK_BYTES = 4224
export const PAGE_BYTES: number = 2 * BLOCK_BYTES

export type Side = 'key' | 'value'

/** A nibble: its byte in the page, and its lowest bit. */
export interface Place {
  readonly byte: number
  readonly shift: 0 | 4
}

/** Where a token's code is. */
export function placeOf(side: Side, token: number, channel: number): Place {
  const inBlock = token % BLOCK_TOKENS
  const start = Math.floor(token / BLOCK_TOKENS) * BLOCK_BYTES
  let word: number
  let nibble: number
  if (side === 'key') {
    // channel = 32s + 16 ⌊j / 2⌋ + 8 (j % 2) + 2l + e
    const [s, j, l, e] = [channel >> 5, (channel >> 3) & 3, (channel >> 1) & 3, channel & 1]
    word = inBlock * 16 + 4 * l + s
    nibble = 4 * e + j
  } else {
    // token = 8i + 2l + e, channel = 8 (c + 4j) + n
    const [i, l, e] = [inBlock >> 3, (inBlock >> 1) & 3, inBlock & 1]
    const [j, c, n] = [channel >> 5, (channel >> 3) & 3, channel & 7]
    word = 512 + ((i * 4 + l) * 8 + (n ^ (2 * l))) * 4 + c
    nibble = 4 * e + j
  }
  return { byte: start + word * 4 + (nibble >> 1), shift: nibble % 2 === 0 ? 0 : 4 }
}

/** The two bytes of a token's scale. */
export function scalePlace(side: Side, token: number): number {
  const start = Math.floor(token / BLOCK_TOKENS) * BLOCK_BYTES
  return start + 4096 + (token % BLOCK_TOKENS) * 4 + (side === 'key' ? 0 : 2)
}

/** Writes a vector of codes 0…15 with its scale's two bytes into a page. */
export function writeVector(page: Uint8Array, side: Side, token: number, vector: StoredVector): void {
  for (let channel = 0; channel < CHANNELS; channel++) {
    const { byte, shift } = placeOf(side, token, channel)
    page[byte] = (page[byte]! & (0xf0 >> shift)) | (vector.codes[channel]! << shift)
  }
  page.set(vector.scaleBytes, scalePlace(side, token))
}

/** What a cache holds of one token and head. */
export interface StoredVector {
  readonly codes: Uint8Array
  readonly scaleBytes: Uint8Array
}

export function readVector(page: Uint8Array, side: Side, token: number): StoredVector {
  const codes = Uint8Array.from({ length: CHANNELS }, (_, channel) => {
    const { byte, shift } = placeOf(side, token, channel)
    return (page[byte]! >> shift) & 15
  })
  const at = scalePlace(side, token)
  return { codes, scaleBytes: page.slice(at, at + 2) }
}

/** σ and zero point: BF16 σ and 8, or an E4M3 σ and a byte. */
export function scaleOf(
  [low, high]: Uint8Array,
  symmetric: boolean,
): { readonly scale: number; readonly zero: number } {
  if (symmetric) return { scale: bf16BitsToF32(low! | (high! << 8)), zero: 8 }
  return { scale: decodeE4m3(Uint8Array.of(low!))[0]!, zero: high! }
}

/** σ · (code − zero). */
export function valuesOf({ codes, scaleBytes }: StoredVector, symmetric: boolean): Float32Array {
  const { scale, zero } = scaleOf(scaleBytes, symmetric)
  return Float32Array.from(codes, (code) => scale * (code - zero))
}

export const PAGE_TOKENS: number = TOKENS
