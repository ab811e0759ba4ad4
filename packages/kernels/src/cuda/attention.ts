import { expect, expectBytes } from './checks.js'
import type { DecodeBatch } from './decode-batch.js'
import { type PrefillBatch, prefillKernels } from './prefill-batch.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

// The launchers of kernels/cuda/attention_decode.cuh, attention_prefill_tiles.cuh and attention_prefill.cuh.

interface Attend {
  readonly layer: number
  /** E4M3 [rows, numAttentionHeads, headDim]; the batch says which rows. */
  readonly q: CudaBuffer
  /** FP32 [rows, numAttentionHeads]. */
  readonly qScale: CudaBuffer
  /** BF16 [rows, numAttentionHeads, headDim]. */
  readonly out: CudaBuffer
  /** On the scores. Default: 1/√headDim. */
  readonly softmaxScale?: number
}

export interface AttendDecode extends Attend {
  readonly batch: DecodeBatch
  /**
   * See LaunchShape. The batch's tables and tokens that aren't new are then read before the kernel before it has ended: they must have
   * been there when the batch was updated last. Default: false.
   */
  readonly dependent?: boolean
}

export interface AttendPrefill extends Attend {
  readonly batch: PrefillBatch
  /** See LaunchShape. Default: false. */
  readonly dependent?: boolean
}

const i32 = (value: number) => ({ type: 'i32', value }) as const
const f32 = (value: number) => ({ type: 'f32', value }) as const

/**
 * The op `attention` for few new tokens a sequence, over the cache, which already holds them: out = softmax(q·K)·V, a query seeing
 * what isn't newer than itself. What there is to do is read on the device when it runs: see DecodeBatch. Probabilities are FP16 there,
 * BF16 over a BF16 cache; the error is about that of rounding the result to BF16. More than 16 queries a key-value head (heads of its
 * group × new tokens) read the cache once for each 16. Only enqueues.
 */
export function attendDecode(stream: CudaStream, op: AttendDecode): void {
  const { batch, layer, q, qScale, out, softmaxScale = batch.cache.spec.headDim ** -0.5, dependent = false } = op
  const { cache, sequences, numAttentionHeads, newTokens, pagesPerSequence, shape, tables } = batch
  const { kernel, info } = batch.kernel
  const { numKeyValueHeads, headDim } = cache.spec
  const what = `attendDecode of q [${sequences * newTokens}, ${numAttentionHeads}, ${headDim}], ${numKeyValueHeads} key-value heads`
  checkAttend(what, op, sequences * newTokens * numAttentionHeads, headDim)
  const pages = cache.layer(layer, what)
  const { pageTable, runs, pieces, merges, partial, arrived } = tables
  const group = numAttentionHeads / numKeyValueHeads
  const fields = [
    ...[q, qScale, pages, pageTable, runs, pieces, merges, out, partial, arrived],
    ...[numAttentionHeads, numKeyValueHeads, group, newTokens, pagesPerSequence].map(i32),
    f32(softmaxScale),
  ]
  const grid = [shape.blocks, 1, 1] as const
  const launch = { grid, block: [info.threads, 1, 1], sharedBytes: info.sharedBytes, dependent } as const
  stream.launch(kernel, launch, [{ fields }], what)
}

/**
 * The op `attention` for many new tokens a sequence, causal, over the cache, which already holds them, with what was there before:
 * first each key-value head's tokens become FP8 tiles in the batch's memory, then both products are FP8. Probabilities are E4M3 as
 * in the op's `probabilities: 'e4m3'`, but scaled and with the value's scale in them, and scores are FP16, so exponents of more than a
 * few hundred lose their last bits (kernels/cuda/attention_prefill_softmax.cuh). The cache is INT4, or E4M3; with the batch's
 * `chunk` new tokens' keys and values are in FP8 and the others' INT4 (the paper's evaluation has all of them INT4). A BF16 cache is
 * a baseline without FP8: queries, keys, values and probabilities meet in BF16, without tiles, slower. Only enqueues; for no new tokens
 * nothing.
 */
export function attendPrefill(stream: CudaStream, op: AttendPrefill): void {
  const { batch, layer, q, qScale, out, softmaxScale = batch.cache.spec.headDim ** -0.5, dependent = false } = op
  const { cache, chunk, tokens, numAttentionHeads, pagesPerSequence, tileCount, workCount, tables } = batch
  const { numKeyValueHeads, headDim } = cache.spec
  const what = `attendPrefill of q [${tokens}, ${numAttentionHeads}, ${headDim}], ${numKeyValueHeads} key-value heads`
  checkAttend(what, op, tokens * numAttentionHeads, headDim)
  const pages = cache.layer(layer, what)
  if (tokens === 0) return
  const { tiles, attend } = prefillKernels(cache, what, chunk)
  const shapeOf = ({ info }: typeof attend, x: number, y: number) =>
    ({ grid: [x, y, 1], block: [info.threads, 1, 1], sharedBytes: info.sharedBytes, dependent }) as const
  if (tiles === undefined) {
    const fields = [
      ...[q, qScale, pages, tables.pageTable, tables.work, out],
      ...[numAttentionHeads, numKeyValueHeads, pagesPerSequence].map(i32),
      f32(softmaxScale),
    ]
    stream.launch(attend.kernel, shapeOf(attend, workCount, numKeyValueHeads), [{ fields }], what)
    return
  }
  const decoding = [
    ...[pages, tables.pageTable, tables.tiles, tables.decoded],
    ...[numKeyValueHeads, pagesPerSequence].map(i32),
    ...(chunk === undefined ? [] : [chunk.layer(layer, what), tables.chunkPageTable]),
  ]
  const attending = [
    ...[q, qScale, tables.decoded, tables.work, out],
    ...[workCount, numAttentionHeads, numKeyValueHeads].map(i32),
    f32(softmaxScale),
  ]
  stream.launch(tiles.kernel, shapeOf(tiles, tileCount, numKeyValueHeads), [{ fields: decoding }], what)
  stream.launch(attend.kernel, shapeOf(attend, batch.blocks, 1), [{ fields: attending }], what)
}

function checkAttend(what: string, { q, qScale, out, softmaxScale = 1 }: Attend, rows: number, headDim: number): void {
  expect(Number.isFinite(softmaxScale) && softmaxScale > 0, what, 'a positive softmaxScale', softmaxScale)
  expectBytes(what, {
    q: [q, rows * headDim],
    qScale: [qScale, rows * 4],
    out: [out, rows * headDim * 2],
  })
}
