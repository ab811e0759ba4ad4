import { expect, expectBytes, expectGroups, expectWhole } from './checks.js'
import type { CudaKvCache } from './kv-cache.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

// The launcher of kernels/cuda/attention_store.cuh.

export interface RopeStoreKv {
  readonly cache: CudaKvCache
  readonly layer: number
  readonly numAttentionHeads: number
  readonly tokens: number
  /** BF16 [tokens, (numAttentionHeads + 2 · numKeyValueHeads) · headDim]: query heads, key heads, value heads. */
  readonly qkv: CudaBuffer
  /** i32 [tokens], not below 0. */
  readonly positions: CudaBuffer
  /** i32 [tokens]: page · 64 + place in the page; below 0: keys and values aren't stored. Nothing is checked on the device. */
  readonly slots: CudaBuffer
  /** FP32 [headDim / 2]; Llama 3.1's scaling is in them. */
  readonly inverseFrequencies: CudaBuffer
  /** FP32 [numKeyValueHeads, headDim], both or none: post-RoPE scaling, and its inverse for the queries of the head's group. */
  readonly keyScale?: CudaBuffer
  readonly queryScale?: CudaBuffer
  /** E4M3 [tokens, numAttentionHeads, headDim]. */
  readonly q: CudaBuffer
  /** FP32 [tokens, numAttentionHeads]. */
  readonly qScale: CudaBuffer
  /** See LaunchShape. Default: false. */
  readonly dependent?: boolean
}

/**
 * The ops `rope`, `scaleKeys`, `quantizeFp8` of queries (a scale a token and head) and `storeKv` in one pass over the projection's
 * output, in FP32, without rounding to BF16 in between. Only enqueues; for no tokens nothing.
 */
export function ropeStoreKv(stream: CudaStream, op: RopeStoreKv): void {
  const { cache, layer, numAttentionHeads, tokens, qkv, positions, slots, inverseFrequencies, q, qScale } = op
  const { keyScale = null, queryScale = null, dependent = false } = op
  const { numKeyValueHeads, headDim } = cache.spec
  const heads = numAttentionHeads + 2 * numKeyValueHeads
  const what = `ropeStoreKv of qkv [${tokens}, ${heads * headDim}], ${numAttentionHeads}/${numKeyValueHeads} heads`
  expectWhole(what, 'tokens', tokens, 0, 2 ** 31 - 1)
  expectGroups(what, numAttentionHeads, numKeyValueHeads)
  const pages = cache.layer(layer, what)
  const given = keyScale === null ? 'queryScale alone' : 'keyScale alone'
  expect((keyScale === null) === (queryScale === null), what, 'keyScale and queryScale or neither', given)
  const scaleBytes = numKeyValueHeads * headDim * 4
  expectBytes(what, {
    qkv: [qkv, tokens * heads * headDim * 2],
    positions: [positions, tokens * 4],
    slots: [slots, tokens * 4],
    inverseFrequencies: [inverseFrequencies, (headDim / 2) * 4],
    q: [q, tokens * numAttentionHeads * headDim],
    qScale: [qScale, tokens * numAttentionHeads * 4],
    ...(keyScale && queryScale && { keyScale: [keyScale, scaleBytes], queryScale: [queryScale, scaleBytes] }),
  })
  if (tokens === 0) return
  const { kernel, info } = cache.kernel('attention_store', what)
  const buffers = [qkv, positions, slots, inverseFrequencies, keyScale, queryScale, q, qScale, pages]
  const sizes = [tokens, numAttentionHeads, numKeyValueHeads, 0] // the last: pointers' alignment
  const fields = [...buffers, ...sizes.map((value) => ({ type: 'i32', value }) as const)]
  const blocks = Math.ceil(tokens / info.queries)
  const stepsOfTwo = Math.ceil(numAttentionHeads / info.heads) + 2 * Math.ceil(numKeyValueHeads / info.heads)
  // A block's steps go into parts, a warp each at least, so that few tokens occupy all multiprocessors too.
  const most = Math.ceil(((info.queries / 2) * stepsOfTwo) / (info.threads / 32))
  const parts = Math.min(Math.ceil((4 * cache.device.info.multiprocessors) / blocks), most)
  const shape = { grid: [blocks, parts, 1], block: [info.threads, 1, 1], sharedBytes: info.sharedBytes } as const
  stream.launch(kernel, { ...shape, dependent }, [{ fields }], what)
}
