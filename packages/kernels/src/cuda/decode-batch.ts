import type { Handle } from '../backend.js'
import { allocateAll } from './allocate-all.js'
import type { AttentionKernel } from './attention-info.js'
import { expect, expectGroups, expectWhole } from './checks.js'
import { type DecodeShape, mergesWords, mostPieces, PIECE_WORDS, planDecode, RUN_WORDS } from './decode-plan.js'
import type { CudaKvCache } from './kv-cache.js'
import { type KvSequence, type SequenceTables, sequenceTables } from './kv-sequences.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export interface DecodeBatchOptions {
  /** Sequences at most. */
  readonly sequences: number
  /** Pages of the longest sequence that may come. */
  readonly pagesPerSequence: number
  readonly numAttentionHeads: number
  /** Of each sequence, 1 or more: several with speculative decoding. Default: 1. */
  readonly newTokens?: number
  /** How many work for it. Default: all. */
  readonly multiprocessors?: number
}

/** What attendDecode reads of it; see AttentionDecodeParams. */
export interface DecodeTables {
  /** i32 [sequences, pagesPerSequence] */
  readonly pageTable: CudaBuffer
  /** Who does what: kernels/cuda/attention_decode_plan.h. */
  readonly runs: CudaBuffer
  readonly merges: CudaBuffer
  readonly pieces: CudaBuffer
  /** Sums of segments that several blocks have, and how many have come. */
  readonly partial: CudaBuffer
  readonly arrived: CudaBuffer
}

/**
 * Sequences that each get a few new tokens a step: on the device their page tables and how the work is cut, which `update` changes
 * between replays of a captured graph, and the memory that a decode launch needs beside them. For all layers of a cache, on one stream
 * at a time. Rows of q and out are sequence · newTokens + token.
 */
export class DecodeBatch implements Handle {
  readonly cache: CudaKvCache
  readonly sequences: number
  readonly pagesPerSequence: number
  readonly numAttentionHeads: number
  readonly newTokens: number
  /** i32 [sequences · newTokens], for `ropeStoreKv`; slots of sequences that aren't there are −1. */
  readonly positions: CudaBuffer
  readonly slots: CudaBuffer
  /** Of device memory. */
  readonly bytes: number
  readonly tables: DecodeTables
  /** What attendDecode launches, and on how many blocks. */
  readonly kernel: AttentionKernel
  readonly shape: DecodeShape

  private constructor(
    cache: CudaKvCache,
    {
      sequences,
      pagesPerSequence,
      numAttentionHeads,
      newTokens,
    }: Required<Omit<DecodeBatchOptions, 'multiprocessors'>>,
    kernel: AttentionKernel,
    shape: DecodeShape,
    buffers: Buffers,
  ) {
    this.cache = cache
    this.sequences = sequences
    this.pagesPerSequence = pagesPerSequence
    this.numAttentionHeads = numAttentionHeads
    this.newTokens = newTokens
    this.kernel = kernel
    this.shape = shape
    this.positions = buffers.positions
    this.slots = buffers.slots
    this.tables = buffers
    this.bytes = Object.values(buffers).reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Allocates for work on `stream`; all sequences are empty at first. */
  static async create(stream: CudaStream, cache: CudaKvCache, options: DecodeBatchOptions): Promise<DecodeBatch> {
    const { sequences, pagesPerSequence, numAttentionHeads, newTokens = 1 } = options
    const { multiprocessors = cache.device.info.multiprocessors } = options
    const what = `decode batch of ${sequences} sequences of ${pagesPerSequence} pages, ${numAttentionHeads} attention heads`
    const { spec } = cache
    expectGroups(what, numAttentionHeads, spec.numKeyValueHeads)
    expectWhole(what, 'sequences', sequences, 1, 2 ** 16 - 1)
    expectWhole(what, 'pagesPerSequence', pagesPerSequence, 1, cache.pages)
    expectWhole(what, 'newTokens', newTokens, 1, 2 ** 10)
    expectWhole(what, 'multiprocessors', multiprocessors, 1, cache.device.info.multiprocessors)
    const queries = (numAttentionHeads / spec.numKeyValueHeads) * newTokens
    const kernel = cache.kernel(`attention_decode_q${queries <= 8 ? 8 : 16}`, what)
    const { info } = kernel
    const shape: DecodeShape = {
      keyHeads: spec.numKeyValueHeads,
      parts: Math.ceil(queries / info.queries),
      blocks: multiprocessors,
      warps: info.threads / 32,
    }
    const sizes: Record<keyof Buffers, number> = {
      pageTable: sequences * pagesPerSequence * 4,
      runs: shape.blocks * shape.warps * RUN_WORDS * 4,
      merges: shape.blocks * mergesWords(shape.warps) * 4,
      pieces: mostPieces(sequences, shape) * PIECE_WORDS * 4,
      positions: sequences * newTokens * 4,
      slots: sequences * newTokens * 4,
      partial: 2 * shape.blocks * info.bytes,
      arrived: shape.blocks * info.queries * 4,
    }
    const buffers = allocateAll(stream, sizes, what)
    stream.fill(buffers.arrived, 0, what)
    const batch = new DecodeBatch(
      cache,
      { sequences, pagesPerSequence, numAttentionHeads, newTokens },
      kernel,
      shape,
      buffers,
    )
    try {
      await batch.update(stream, [])
    } catch (error) {
      batch.dispose()
      throw error
    }
    return batch
  }

  /**
   * Sets the sequences, each with its last `newTokens` tokens new; those of length 0, and those that aren't given, are empty: their
   * output is zero. Later work on `stream` sees them, captured graphs too. Not in a capture. Results repeat to the bit for the same
   * lengths of all sequences: how the work is cut among multiprocessors depends on them.
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
    const { pageTable, positions, slots } = sequenceTables(this.cache, withNew, what, this.pagesPerSequence)
    const { runs, merges, pieces } = planDecode(rows, this.shape)
    await stream.upload(this.tables.pageTable, pageTable, what)
    await stream.upload(this.tables.runs, runs, what)
    await stream.upload(this.tables.merges, merges, what)
    await stream.upload(this.tables.pieces, pieces, what)
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
