import { bf16BitsToF32, decodeE4m3 } from '@fireq/formats'
import type { CudaKvFormat } from '../../src/cuda/kv-cache.js'

// Where codes and scales lie in a page of one key-value head, from the text of kernels/cuda/kv_layout.cuh alone.

export const PAGE_TOKENS: number = 64
const BLOCK_TOKENS = 32

export type Side = 'key' | 'value'

/** A code: its byte in the page, and its lowest bit there (BF16: its first byte). */
export interface Place {
  readonly byte: number
  readonly shift: 0 | 4
}

/** What a cache holds of one token and head: codes 0…15, E4M3 bytes or BF16 bits; and two bytes of scale, or none. */
export interface StoredVector {
  readonly codes: Uint16Array
  readonly scaleBytes: Uint8Array
}

export class KvLayout {
  readonly codeBits: 4 | 8 | 16
  readonly pageBytes: number
  readonly #sideBytes: number
  readonly #blockBytes: number

  constructor(
    readonly format: CudaKvFormat,
    readonly headDim: number,
  ) {
    this.codeBits = format.dtype === 'int4' ? 4 : format.dtype === 'e4m3' ? 8 : 16
    this.#sideBytes = (BLOCK_TOKENS * headDim * this.codeBits) / 8
    this.#blockBytes = 2 * this.#sideBytes + (this.hasScales ? BLOCK_TOKENS * 4 : 0)
    this.pageBytes = (PAGE_TOKENS / BLOCK_TOKENS) * this.#blockBytes
  }

  get hasScales(): boolean {
    return this.codeBits < 16
  }

  /** Where a token's code is. */
  placeOf(side: Side, token: number, channel: number): Place {
    const inBlock = token % BLOCK_TOKENS
    const start = Math.floor(token / BLOCK_TOKENS) * this.#blockBytes + (side === 'key' ? 0 : this.#sideBytes)
    const at = side === 'key' ? this.#keyCode(inBlock, channel) : this.#valueCode(inBlock, channel)
    const bit = at * this.codeBits
    return { byte: start + (bit >> 3), shift: bit % 8 === 0 ? 0 : 4 }
  }

  /** The two bytes of a token's scale. */
  scalePlace(side: Side, token: number): number {
    const start = Math.floor(token / BLOCK_TOKENS) * this.#blockBytes + 2 * this.#sideBytes
    return start + (token % BLOCK_TOKENS) * 4 + (side === 'key' ? 0 : 2)
  }

  /** Writes a vector with its scale into a page. */
  write(page: Uint8Array, side: Side, token: number, { codes, scaleBytes }: StoredVector): void {
    for (let channel = 0; channel < this.headDim; channel++) {
      const { byte, shift } = this.placeOf(side, token, channel)
      const code = codes[channel]!
      if (this.codeBits === 4) page[byte] = (page[byte]! & (0xf0 >> shift)) | (code << shift)
      else page[byte] = code & 255
      if (this.codeBits === 16) page[byte + 1] = code >> 8
    }
    if (this.hasScales) page.set(scaleBytes, this.scalePlace(side, token))
  }

  read(page: Uint8Array, side: Side, token: number): StoredVector {
    const codes = Uint16Array.from({ length: this.headDim }, (_, channel) => {
      const { byte, shift } = this.placeOf(side, token, channel)
      if (this.codeBits === 4) return (page[byte]! >> shift) & 15
      return this.codeBits === 8 ? page[byte]! : page[byte]! | (page[byte + 1]! << 8)
    })
    const at = this.scalePlace(side, token)
    return { codes, scaleBytes: this.hasScales ? page.slice(at, at + 2) : new Uint8Array(0) }
  }

  /** σ and zero point: BF16 σ, or an E4M3 σ and a byte. */
  scaleOf([low, high]: Uint8Array): { readonly scale: number; readonly zero: number } {
    if (!this.hasScales) return { scale: 1, zero: 0 }
    if (this.format.dtype === 'int4' && !this.format.symmetric) {
      return { scale: decodeE4m3(Uint8Array.of(low!))[0]!, zero: high! }
    }
    return { scale: bf16BitsToF32(low! | (high! << 8)), zero: this.codeBits === 4 ? 8 : 0 }
  }

  /** σ · (code − zero). */
  valuesOf({ codes, scaleBytes }: StoredVector): Float32Array {
    const { scale, zero } = this.scaleOf(scaleBytes)
    if (this.codeBits === 16) return Float32Array.from(codes, bf16BitsToF32)
    const numbers = this.codeBits === 8 ? decodeE4m3(Uint8Array.from(codes)) : codes
    return Float32Array.from(numbers, (code) => scale * (code - zero))
  }

  /** In codes from the first of a block's keys. */
  #keyCode(token: number, channel: number): number {
    const { headDim } = this
    if (this.codeBits === 4) {
      // channel = 32s + 16 ⌊j / 2⌋ + 8 (j % 2) + 2l + e
      const [s, j, l, e] = [channel >> 5, (channel >> 3) & 3, (channel >> 1) & 3, channel & 1]
      const word = (token * headDim) / 8 + (headDim / 32) * l + s
      return word * 8 + 4 * e + j
    }
    const width = this.codeBits === 8 ? 64 : 32
    return (Math.floor(channel / width) * BLOCK_TOKENS + token) * width + (channel % width)
  }

  /** In codes from the first of a block's values. */
  #valueCode(token: number, channel: number): number {
    const { headDim } = this
    const [i, l, e, n] = [token >> 3, (token >> 1) & 3, token & 1, channel & 7]
    const swapped = n ^ (2 * l)
    if (this.codeBits === 4) {
      // channel = D/4 · j + 8c + n
      const [j, c] = [Math.floor(channel / (headDim / 4)), Math.floor((channel % (headDim / 4)) / 8)]
      return (((i * 4 + l) * 8 + swapped) * (headDim / 32) + c) * 8 + 4 * e + j
    }
    if (this.codeBits === 8) {
      // channel = 64h + 32j + 8c + n
      const [h, j, c] = [channel >> 6, (channel >> 5) & 1, (channel >> 3) & 3]
      return ((((i * (headDim / 64) + h) * 4 + l) * 8 + swapped) * 4 + c) * 4 + 2 * j + e
    }
    const [h, c] = [channel >> 5, (channel >> 3) & 3] // channel = 32h + 8c + n
    return ((((i * (headDim / 32) + h) * 4 + l) * 8 + swapped) * 4 + c) * 2 + e
  }
}

const formats: readonly CudaKvFormat[] = [
  { dtype: 'int4', symmetric: true, scale: 'bf16' },
  { dtype: 'int4', symmetric: false, scale: 'e4m3' },
  { dtype: 'e4m3' },
  { dtype: 'bf16' },
]
/** All that there are. */
export const layouts: readonly KvLayout[] = formats.flatMap((format) =>
  [64, 128].map((headDim) => new KvLayout(format, headDim)),
)
