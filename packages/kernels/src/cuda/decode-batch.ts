import type { Handle } from '../backend.js'
import { allocateAll } from './allocate-all.js'
import { expect, expectWhole } from './checks.js'
import { chooseDecodeChunk } from './decode-chunks.js'
import { type CudaKvCache, KV_PAGE_TOKENS } from './kv-cache.js'
import { type KvSequence, type SequenceTables, sequenceTables } from './kv-sequences.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export interface DecodeBatchOptions {
  /** Sequences at most. */
  readonly sequences: number
  /** Pages of the longest sequence that may come. */
  readonly pagesPerSequence: number
  /** Of each sequence, 1 or more: several with speculative decoding. Default: 1. */
  readonly newTokens?: number
  /** Tokens that a block takes of a sequence, a multiple of 64; results repeat to the bit for one number. Default: chosen. */
  readonly chunkTokens?: number
}

/** What attendDecode reads of it. */
export interface DecodeTables {
  /** i32 [sequences, pagesPerSequence] and [sequences]. */
  readonly pageTable: CudaBuffer
  readonly lengths: CudaBuffer
  /** Chunks' sums, and how many have come. */
  readonly partial: CudaBuffer
  readonly arrived: CudaBuffer
}

/**
 * Sequences that each get a few new tokens a step: their page tables and lengths on the device, which `update` changes between
 * replays of a captured graph, and the memory that a decode launch needs beside them. For all layers of a cache, on one stream at
 * a time. Rows of q and out are sequence · newTokens + token.
 */
export class DecodeBatch implements Handle {
  readonly cache: CudaKvCache
  readonly sequences: number
  readonly pagesPerSequence: number
  readonly newTokens: number
  readonly chunkTokens: number
  /** Blocks of the longest sequence and key-value head. */
  readonly chunks: number
  /** i32 [sequences · newTokens], for `ropeStoreKv`; slots of sequences that aren't there are −1. */
  readonly positions: CudaBuffer
  readonly slots: CudaBuffer
  /** Of device memory. */
  readonly bytes: number
  readonly tables: DecodeTables

  private constructor(
    cache: CudaKvCache,
    { sequences, pagesPerSequence, newTokens, chunkTokens }: Required<DecodeBatchOptions>,
    buffers: Buffers,
  ) {
    this.cache = cache
    this.sequences = sequences
    this.pagesPerSequence = pagesPerSequence
    this.newTokens = newTokens
    this.chunkTokens = chunkTokens
    this.chunks = chunksOf(pagesPerSequence, chunkTokens)
    this.positions = buffers.positions
    this.slots = buffers.slots
    this.tables = buffers
    this.bytes = Object.values(buffers).reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Allocates for work on `stream`; all sequences are empty at first. */
  static create(stream: CudaStream, cache: CudaKvCache, options: DecodeBatchOptions): DecodeBatch {
    const { sequences, pagesPerSequence, newTokens = 1 } = options
    const what = `decode batch of ${sequences} sequences of ${pagesPerSequence} pages`
    expectWhole(what, 'sequences', sequences, 1, 2 ** 16 - 1)
    expectWhole(what, 'pagesPerSequence', pagesPerSequence, 1, cache.pages)
    expectWhole(what, 'newTokens', newTokens, 1, 16)
    const { device, spec } = cache
    const heads = sequences * spec.numKeyValueHeads
    const longest = pagesPerSequence * KV_PAGE_TOKENS
    const chunkTokens = options.chunkTokens ?? chooseDecodeChunk(longest, heads, device.info.multiprocessors)
    expectWhole(what, 'chunkTokens', chunkTokens, KV_PAGE_TOKENS, 2 ** 31 - KV_PAGE_TOKENS)
    expect(chunkTokens % KV_PAGE_TOKENS === 0, what, `chunkTokens a multiple of ${KV_PAGE_TOKENS}`, chunkTokens)
    const { info } = cache.kernel('attention_decode_q8', what)
    cache.kernel('attention_decode_q16', what)
    const chunks = chunksOf(pagesPerSequence, chunkTokens)
    // Each warp's factors of the chunks take the place of the pages.
    const mostChunks = Math.floor(info.sharedBytes / (info.threads / 32) / 4)
    expect(chunks <= mostChunks, what, `at most ${mostChunks} chunks of ${chunkTokens} tokens`, chunks)
    const sizes: Record<keyof Buffers, number> = {
      pageTable: sequences * pagesPerSequence * 4,
      lengths: sequences * 4,
      positions: sequences * newTokens * 4,
      slots: sequences * newTokens * 4,
      partial: chunks > 1 ? heads * chunks * info.bytes : 0,
      arrived: heads * 4,
    }
    const buffers = allocateAll(stream, sizes, what)
    const first = { pageTable: 0xff, lengths: 0, positions: 0, slots: 0xff, arrived: 0 }
    for (const [name, value] of Object.entries(first)) stream.fill(buffers[name as keyof typeof first], value, what)
    return new DecodeBatch(cache, { sequences, pagesPerSequence, newTokens, chunkTokens }, buffers)
  }

  /**
   * Sets the sequences, each with its last `newTokens` tokens new; those of length 0, and those that aren't given, are empty: their
   * output is zero. Later work on `stream` sees them, captured graphs too. Not in a capture.
   */
  async update(stream: CudaStream, sequences: readonly KvSequence[]): Promise<void> {
    const what = `decode batch of ${this.sequences} sequences of ${this.pagesPerSequence} pages`
    expect(sequences.length <= this.sequences, what, `at most ${this.sequences} sequences`, sequences.length)
    const rows = Array.from({ length: this.sequences }, (_, s) => sequences[s] ?? { pages: [], length: 0 })
    rows.forEach(({ length }, s) => {
      const holds = length === 0 || length >= this.newTokens
      expect(holds, `${what}, sequence ${s}`, `none or at least its ${this.newTokens} new tokens`, length)
    })
    const withNew = rows.map((row) => ({ ...row, newTokens: Math.min(row.length, this.newTokens) }))
    const { pageTable, lengths, positions, slots } = sequenceTables(this.cache, withNew, what, this.pagesPerSequence)
    await stream.upload(this.tables.pageTable, pageTable, what)
    await stream.upload(this.tables.lengths, lengths, what)
    await stream.upload(this.positions, spread(positions, rows, this.newTokens, 0), what)
    await stream.upload(this.slots, spread(slots, rows, this.newTokens, -1), what)
  }

  dispose(): void {
    for (const buffer of [this.positions, this.slots, ...Object.values(this.tables)]) buffer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

type Buffers = DecodeTables & Pick<DecodeBatch, 'positions' | 'slots'>

function chunksOf(pagesPerSequence: number, chunkTokens: number): number {
  return Math.ceil((pagesPerSequence * KV_PAGE_TOKENS) / chunkTokens)
}

/** Values of sequences that have tokens, `width` each; the others get `none`. */
function spread(
  values: SequenceTables['slots'],
  rows: readonly { readonly length: number }[],
  width: number,
  none: number,
): Int32Array {
  const result = new Int32Array(rows.length * width).fill(none)
  let at = 0
  rows.forEach(({ length }, s) => {
    if (length === 0) return
    result.set(values.subarray(at, at + width), s * width)
    at += width
  })
  return result
}
