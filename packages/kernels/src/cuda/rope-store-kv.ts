import { expect, expectBytes, expectGroups, expectWhole } from './checks.js'
import { type CudaKvCache, KV_HEAD_DIM } from './kv-cache.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

// The launcher of kernels/cuda/attention_store.cuh.

export interface RopeStoreKv {
  readonly cache: CudaKvCache
  readonly layer: number
  readonly numAttentionHeads: number
  readonly tokens: number
  /** BF16 [tokens, (numAttentionHeads + 2 · numKeyValueHeads) · 128]: query heads, key heads, value heads. */
  readonly qkv: CudaBuffer
  /** i32 [tokens], not below 0. */
  readonly positions: CudaBuffer
  /** i32 [tokens]: page · 64 + place in the page; below 0: keys and values aren't stored. Nothing is checked on the device. */
  readonly slots: CudaBuffer
  /** FP32 [64]; Llama 3.1's scaling is in them. */
  readonly inverseFrequencies: CudaBuffer
  /** FP32 [numKeyValueHeads, 128], both or none: post-RoPE scaling, and its inverse for the queries of the head's group. */
  readonly keyScale?: CudaBuffer
  readonly queryScale?: CudaBuffer
  /** E4M3 [tokens, numAttentionHeads, 128]. */
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
  const { numKeyValueHeads } = cache.spec
  const heads = numAttentionHeads + 2 * numKeyValueHeads
  const what = `ropeStoreKv of qkv [${tokens}, ${heads * KV_HEAD_DIM}], ${numAttentionHeads}/${numKeyValueHeads} heads`
  expectWhole(what, 'tokens', tokens, 0, 2 ** 31 - 1)
  expectGroups(what, numAttentionHeads, numKeyValueHeads)
  const pages = cache.layer(layer, what)
  const given = keyScale === null ? 'queryScale alone' : 'keyScale alone'
  expect((keyScale === null) === (queryScale === null), what, 'keyScale and queryScale or neither', given)
  const scaleBytes = numKeyValueHeads * KV_HEAD_DIM * 4
  expectBytes(what, {
    qkv: [qkv, tokens * heads * KV_HEAD_DIM * 2],
    positions: [positions, tokens * 4],
    slots: [slots, tokens * 4],
    inverseFrequencies: [inverseFrequencies, (KV_HEAD_DIM / 2) * 4],
    q: [q, tokens * numAttentionHeads * KV_HEAD_DIM],
    qScale: [qScale, tokens * numAttentionHeads * 4],
    ...(keyScale && queryScale && { keyScale: [keyScale, scaleBytes], queryScale: [queryScale, scaleBytes] }),
  })
  if (tokens === 0) return
  const { kernel, info } = cache.kernel('attention_store', what)
  const groups = Math.ceil(heads / info.heads)
  // Two blocks a multiprocessor, all at once.
  const tokensPerBlock = Math.ceil((tokens * groups) / (2 * cache.device.info.multiprocessors))
  const buffers = [qkv, positions, slots, inverseFrequencies, keyScale, queryScale, q, qScale, pages]
  const sizes = [tokens, numAttentionHeads, numKeyValueHeads, tokensPerBlock]
  const fields = [...buffers, ...sizes.map((value) => ({ type: 'i32', value }) as const)]
  const grid = [Math.ceil(tokens / tokensPerBlock), groups, 1] as const
  stream.launch(kernel, { grid, block: [info.threads, 1, 1], dependent }, [{ fields }], what)
}
