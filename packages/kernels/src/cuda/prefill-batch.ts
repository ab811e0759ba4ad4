import type { Handle } from '../backend.js'
import { allocateAll } from './allocate-all.js'
import { type AttentionKernel, attentionKernel } from './attention-info.js'
import { expect, expectGroups, expectWhole } from './checks.js'
import { type CudaKvCache, KV_PAGE_TOKENS } from './kv-cache.js'
import { type KvSequence, sequenceTables } from './kv-sequences.js'
import { type PrefillPlan, planDirectPrefill, planPrefill } from './prefill-plan.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

/** A sequence whose last `newTokens` tokens are new; the others are in the cache already. */
export interface PrefillSequence extends KvSequence {
  readonly newTokens: number
  /** In the chunk's cache, for the new tokens, from the page on that the first of them is in (its place in a page stays). */
  readonly chunkPages?: ArrayLike<number>
}

export interface PrefillBatchOptions {
  readonly sequences: readonly PrefillSequence[]
  readonly numAttentionHeads: number
  /**
   * An E4M3 cache, like the INT4 one otherwise, that has the new tokens, too: attention takes their keys and values from there, in
   * FP8, and earlier tokens' from the INT4 cache. Default: all are the INT4 cache's, as later steps will see them.
   */
  readonly chunk?: CudaKvCache
  /** How many work for it at once; not to be given with a BF16 cache. Default: all. */
  readonly multiprocessors?: number
}

/**
 * What attendPrefill reads of it; see AttentionTilesParams and AttentionPrefillParams. Over a BF16 cache there are no tiles, and work is
 * AttentionPrefillDirectParams'.
 */
export interface PrefillTables {
  readonly pageTable: CudaBuffer
  readonly tiles: CudaBuffer
  readonly work: CudaBuffer
  readonly decoded: CudaBuffer
  /** By the same tokens as pageTable; of no bytes without a chunk. */
  readonly chunkPageTable: CudaBuffer
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
  /** Tiles of 128 tokens of context. */
  readonly tileCount: number
  /** Items of work, of 128 queries of a head at most, and the blocks that share them. */
  readonly workCount: number
  readonly blocks: number
  /** i32 [tokens], for `ropeStoreKv`. */
  readonly positions: CudaBuffer
  readonly slots: CudaBuffer
  readonly chunk: CudaKvCache | undefined
  /** i32 [tokens] as well, of the chunk's cache; of no bytes without one. */
  readonly chunkSlots: CudaBuffer
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
    this.blocks = sizes.blocks
    this.positions = buffers.positions
    this.slots = buffers.slots
    this.chunk = sizes.chunk
    this.chunkSlots = buffers.chunkSlots
    this.tables = buffers
    this.bytes = Object.values(buffers).reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** Allocates and uploads for work on `stream`; not in a capture. */
  static async create(stream: CudaStream, cache: CudaKvCache, options: PrefillBatchOptions): Promise<PrefillBatch> {
    const { sequences, numAttentionHeads, chunk } = options
    const { numKeyValueHeads } = cache.spec
    const what = `prefill batch of ${sequences.length} sequences, ${numAttentionHeads} attention heads`
    expectGroups(what, numAttentionHeads, numKeyValueHeads)
    const kernels = prefillKernels(cache, what, chunk)
    const { pageTable, pagesPerSequence, positions, slots } = sequenceTables(cache, sequences, what)
    const plan = planFor(kernels, cache, options, what)
    expectWhole(what, 'rows of q', positions.length * numAttentionHeads, 0, 2 ** 31 - 1)
    const { chunkPageTable, chunkSlots } = chunkTables(chunk, sequences, pagesPerSequence, what)
    const data = { pageTable, tiles: plan.tiles, work: plan.work, positions, slots, chunkPageTable, chunkSlots }
    const tileCount = plan.tiles.length / 4
    const buffers = allocateAll(
      stream,
      {
        pageTable: pageTable.byteLength,
        tiles: plan.tiles.byteLength,
        work: plan.work.byteLength,
        positions: positions.byteLength,
        slots: slots.byteLength,
        chunkPageTable: chunkPageTable.byteLength,
        chunkSlots: chunkSlots.byteLength,
        decoded: tileCount * numKeyValueHeads * (kernels.tiles?.info.bytes ?? 0),
      },
      what,
    )
    const sizes = {
      cache,
      chunk,
      numAttentionHeads,
      tokens: positions.length,
      pagesPerSequence,
      tileCount,
      workCount: plan.work.length / 4,
      blocks: plan.blocks,
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
    for (const buffer of [this.positions, this.slots, this.chunkSlots, ...Object.values(this.tables)]) buffer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** The kernels of a prefill: what makes tiles, and what attends to them, or directly to the cache. */
export interface PrefillKernels {
  readonly tiles: AttentionKernel | undefined
  readonly attend: AttentionKernel
}

/**
 * What makes tiles of a cache (INT4 or E4M3; INT4 with new tokens from a chunk), and what multiplies them, whatever they were made of; for
 * a BF16 cache what attends to it directly. A BackendError for caches that there is none for.
 */
export function prefillKernels(cache: CudaKvCache, what: string, chunk?: CudaKvCache): PrefillKernels {
  const { numLayers, numKeyValueHeads, headDim } = cache.spec
  if (chunk !== undefined) {
    const found = chunk.spec
    const isAlike =
      found.numLayers === numLayers && found.numKeyValueHeads === numKeyValueHeads && found.headDim === headDim
    const describe = ({ spec }: CudaKvCache): string =>
      `${spec.format.dtype}, ${spec.numLayers} layers, ${spec.numKeyValueHeads} heads of ${spec.headDim}`
    const wanted = `a chunk's cache in e4m3, ${numLayers} layers, ${numKeyValueHeads} heads of ${headDim}`
    expect(found.format.dtype === 'e4m3' && isAlike, what, wanted, describe(chunk))
  }
  if (chunk === undefined && cache.spec.format.dtype === 'bf16')
    return { tiles: undefined, attend: cache.kernel('attention_prefill', what) }
  const tiles = cache.kernel(chunk === undefined ? 'attention_tiles' : 'attention_tiles_chunk', what)
  return { tiles, attend: attentionKernel(cache.device, `attention_prefill_d${headDim}`) }
}

function planFor(
  { tiles, attend }: PrefillKernels,
  cache: CudaKvCache,
  { sequences, numAttentionHeads, multiprocessors: most }: PrefillBatchOptions,
  what: string,
): PrefillPlan {
  const { queries } = attend.info
  const { multiprocessors } = cache.device.info
  if (most !== undefined) expectWhole(what, 'multiprocessors', most, 1, multiprocessors)
  if (tiles !== undefined) return planPrefill(sequences, numAttentionHeads, queries, most ?? multiprocessors)
  expect(most === undefined, what, 'no multiprocessors with a BF16 cache', most ?? '')
  const group = numAttentionHeads / cache.spec.numKeyValueHeads
  expect(group <= queries, what, `at most ${queries} attention heads a key-value head of a BF16 cache`, group)
  const work = planDirectPrefill(sequences, Math.floor(queries / group))
  return { tiles: new Int32Array(0), work, blocks: work.length / 4 }
}

/** Where a chunk's cache has the new tokens: [sequences, pagesPerSequence] by the tokens of the sequence, −1 elsewhere; and slots. */
function chunkTables(
  chunk: CudaKvCache | undefined,
  sequences: readonly PrefillSequence[],
  pagesPerSequence: number,
  what: string,
): { readonly chunkPageTable: Int32Array; readonly chunkSlots: Int32Array } {
  if (chunk === undefined) return { chunkPageTable: new Int32Array(0), chunkSlots: new Int32Array(0) }
  const chunkPageTable = new Int32Array(sequences.length * pagesPerSequence).fill(-1)
  const slots: number[] = []
  sequences.forEach(({ length, newTokens, chunkPages = [] }, s) => {
    if (newTokens === 0) return
    const name = `${what}, sequence ${s}`
    const first = Math.floor((length - newTokens) / KV_PAGE_TOKENS)
    const used = Math.ceil(length / KV_PAGE_TOKENS) - first
    expect(chunkPages.length >= used, name, `${used} chunkPages for ${newTokens} new tokens`, chunkPages.length)
    for (let i = 0; i < used; i++) {
      expectWhole(name, `chunk page ${i}`, chunkPages[i]!, 0, chunk.pages - 1)
      chunkPageTable[s * pagesPerSequence + first + i] = chunkPages[i]!
    }
    for (let position = length - newTokens; position < length; position++) {
      const page = chunkPages[Math.floor(position / KV_PAGE_TOKENS) - first]!
      slots.push(page * KV_PAGE_TOKENS + (position % KV_PAGE_TOKENS))
    }
  })
  return { chunkPageTable, chunkSlots: Int32Array.from(slots) }
}

type Buffers = PrefillTables & Pick<PrefillBatch, 'positions' | 'slots' | 'chunkSlots'>
type Sizes = Pick<
  PrefillBatch,
  'cache' | 'chunk' | 'numAttentionHeads' | 'tokens' | 'pagesPerSequence' | 'tileCount' | 'workCount' | 'blocks'
>
