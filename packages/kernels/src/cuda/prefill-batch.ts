import type { Handle } from '../backend.js'
import { allocateAll } from './allocate-all.js'
import { type AttentionKernel, attentionKernel } from './attention-info.js'
import { expectGroups, expectWhole } from './checks.js'
import type { CudaKvCache } from './kv-cache.js'
import { type KvSequence, sequenceTables } from './kv-sequences.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

/** Tokens of a decoded tile (kernels/cuda/attention_prefill_tiles.cuh). */
const TILE_TOKENS = 128

/** A sequence whose last `newTokens` tokens are new; the others are in the cache already. */
export interface PrefillSequence extends KvSequence {
  readonly newTokens: number
}

export interface PrefillBatchOptions {
  readonly sequences: readonly PrefillSequence[]
  readonly numAttentionHeads: number
}

/** What attendPrefill reads of it; see AttentionTilesParams and AttentionPrefillParams. */
export interface PrefillTables {
  readonly pageTable: CudaBuffer
  readonly tiles: CudaBuffer
  readonly work: CudaBuffer
  readonly decoded: CudaBuffer
}

/**
 * One step's sequences with many new tokens each, or few: their pages, and how the work is cut, on the device; and memory for a
 * layer's keys and values in FP8 (263 bytes a token of context and key-value head of 128). For all layers of a cache, on one stream at a
 * time. Rows of q and out are the new tokens, sequence after sequence.
 */
export class PrefillBatch implements Handle {
  readonly cache: CudaKvCache
  readonly numAttentionHeads: number
  /** New ones, of all sequences. */
  readonly tokens: number
  readonly pagesPerSequence: number
  /** Tiles of 128 tokens of context, and pieces of 128 queries of a head at most. */
  readonly tileCount: number
  readonly workCount: number
  /** i32 [tokens], for `ropeStoreKv`. */
  readonly positions: CudaBuffer
  readonly slots: CudaBuffer
  /** Of device memory. */
  readonly bytes: number
  readonly tables: PrefillTables

  private constructor(sizes: Sizes, buffers: Buffers) {
    this.cache = sizes.cache
    this.numAttentionHeads = sizes.numAttentionHeads
    this.tokens = sizes.tokens
    this.pagesPerSequence = sizes.pagesPerSequence
    this.tileCount = sizes.tileCount
    this.workCount = sizes.workCount
    this.positions = buffers.positions
    this.slots = buffers.slots
    this.tables = buffers
    this.bytes = Object.values(buffers).reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Allocates and uploads for work on `stream`; not in a capture. */
  static async create(stream: CudaStream, cache: CudaKvCache, options: PrefillBatchOptions): Promise<PrefillBatch> {
    const { sequences, numAttentionHeads } = options
    const { numKeyValueHeads } = cache.spec
    const what = `prefill batch of ${sequences.length} sequences, ${numAttentionHeads} attention heads`
    expectGroups(what, numAttentionHeads, numKeyValueHeads)
    const { tiles, attend } = prefillKernels(cache, what)
    const { pageTable, pagesPerSequence, positions, slots } = sequenceTables(cache, sequences, what)
    const cut = cutWork(sequences, numAttentionHeads, attend.info.queries)
    expectWhole(what, 'rows of q', positions.length * numAttentionHeads, 0, 2 ** 31 - 1)
    const data = { pageTable, tiles: cut.tiles, work: cut.work, positions, slots }
    const tileCount = cut.tiles.length / 4
    const buffers = allocateAll(
      stream,
      {
        pageTable: pageTable.byteLength,
        tiles: cut.tiles.byteLength,
        work: cut.work.byteLength,
        positions: positions.byteLength,
        slots: slots.byteLength,
        decoded: tileCount * numKeyValueHeads * tiles.info.bytes,
      },
      what,
    )
    const sizes = {
      cache,
      numAttentionHeads,
      tokens: positions.length,
      pagesPerSequence,
      tileCount,
      workCount: cut.work.length / 4,
    }
    const batch = new PrefillBatch(sizes, buffers)
    try {
      for (const [name, values] of Object.entries(data)) {
        await stream.upload(buffers[name as keyof typeof data], values, `${what}: ${name}`)
      }
    } catch (error) {
      batch.dispose()
      throw error
    }
    return batch
  }

  dispose(): void {
    for (const buffer of [this.positions, this.slots, ...Object.values(this.tables)]) buffer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/**
 * What makes tiles of a cache (INT4 or E4M3), and what multiplies them, whatever they were made of; a BackendError for a cache that
 * there is none for.
 */
export function prefillKernels(
  cache: CudaKvCache,
  what: string,
): { readonly tiles: AttentionKernel; readonly attend: AttentionKernel } {
  const tiles = cache.kernel('attention_tiles', what)
  return { tiles, attend: attentionKernel(cache.device, `attention_prefill_d${cache.spec.headDim}`) }
}

type Buffers = PrefillTables & Pick<PrefillBatch, 'positions' | 'slots'>
type Sizes = Pick<
  PrefillBatch,
  'cache' | 'numAttentionHeads' | 'tokens' | 'pagesPerSequence' | 'tileCount' | 'workCount'
>

/**
 * [tiles, 4]: sequence, tile of the sequence, the sequence's tokens, 0. [work, 4]: the sequence's first tile, the first query's row
 * in [tokens · numAttentionHeads], queries, tokens that the first one sees; those that see most first, all heads of a piece together.
 * A piece ends where a tile of its context does, so that one tile alone hides tokens from some of its queries.
 */
export function cutWork(
  sequences: readonly Pick<PrefillSequence, 'length' | 'newTokens'>[],
  numAttentionHeads: number,
  queries: number,
): { readonly tiles: Int32Array; readonly work: Int32Array } {
  const tiles: number[] = []
  const pieces: (readonly [tile: number, token: number, queries: number, sees: number])[] = []
  let token = 0
  sequences.forEach(({ length, newTokens }, s) => {
    if (newTokens === 0) return
    const firstTile = tiles.length / 4
    for (let tile = 0; tile * TILE_TOKENS < length; tile++) tiles.push(s, tile, length, 0)
    for (let at = 0; at < newTokens; ) {
      const before = length - newTokens + at
      const count = Math.min(queries - (before % queries), newTokens - at)
      pieces.push([firstTile, token + at, count, before + 1])
      at += count
    }
    token += newTokens
  })
  pieces.sort((a, b) => b[2] + b[3] - (a[2] + a[3]))
  const work = new Int32Array(pieces.length * numAttentionHeads * 4)
  pieces.forEach(([tile, first, count, sees], i) => {
    for (let head = 0; head < numAttentionHeads; head++) {
      work.set([tile, first * numAttentionHeads + head, count, sees], (i * numAttentionHeads + head) * 4)
    }
  })
  return { tiles: Int32Array.from(tiles), work }
}
