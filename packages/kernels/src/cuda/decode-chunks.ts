import { KV_PAGE_TOKENS } from './kv-cache.js'

/** A block's four warps take a page each. */
const LEAST = 4 * KV_PAGE_TOKENS
/** Blocks that a multiprocessor holds. */
const RESIDENT = 3
/** What a block costs beside its tokens, in tokens: about 3 µs, where a token takes 15 ns. */
const FIXED = 200
const MOST_CHUNKS = 512

/**
 * Tokens that one block of attention_decode takes of a sequence, a multiple of 64: of all equal cuts of the longest sequence the
 * one whose waves of blocks are estimated to end first. `heads`: key-value heads of all sequences. It looks only at what may
 * come, so a batch's results don't depend on what else is in it.
 */
export function chooseDecodeChunk(longest: number, heads: number, multiprocessors: number): number {
  let best = { chunk: 0, cost: Number.POSITIVE_INFINITY }
  for (let chunks = 1; chunks <= MOST_CHUNKS; chunks++) {
    const chunk = Math.max(LEAST, Math.ceil(longest / chunks / KV_PAGE_TOKENS) * KV_PAGE_TOKENS)
    const waves = Math.ceil((heads * Math.ceil(longest / chunk)) / (multiprocessors * RESIDENT))
    const cost = waves * (chunk + FIXED)
    if (cost < best.cost) best = { chunk, cost }
    if (chunk === LEAST) break
  }
  return best.chunk
}
