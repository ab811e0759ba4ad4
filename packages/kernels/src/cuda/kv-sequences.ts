import { expect, expectWhole } from './checks.js'
import { type CudaKvCache, KV_PAGE_TOKENS } from './kv-cache.js'

/** Where a sequence lies in a paged cache. */
export interface KvSequence {
  /** In the order of its tokens; ⌈length / 64⌉ are used. Sequences may share pages that take no new tokens. */
  readonly pages: ArrayLike<number>
  /** Its tokens, with the new ones. */
  readonly length: number
}

/** What kernels read of some sequences, each with its last tokens new. */
export interface SequenceTables {
  /** [rows, pagesPerSequence]; −1 where there is no page. */
  readonly pageTable: Int32Array
  readonly pagesPerSequence: number
  /** [rows] */
  readonly lengths: Int32Array
  /** Of new tokens, sequence after sequence: where each is in its sequence, and page · 64 + its place in the page. */
  readonly positions: Int32Array
  readonly slots: Int32Array
}

/**
 * Checks sequences against their cache, and lays their pages out in rows of `columns` (default: as many as the longest has). A page
 * takes new tokens of one sequence alone.
 */
export function sequenceTables(
  cache: CudaKvCache,
  sequences: readonly (KvSequence & { readonly newTokens: number })[],
  what: string,
  columns?: number,
): SequenceTables {
  const used = sequences.map((sequence, s) => checkSequence(cache, sequence, `${what}, sequence ${s}`, columns))
  const pagesPerSequence = columns ?? used.reduce((most, count) => Math.max(most, count), 1)
  const pageTable = new Int32Array(sequences.length * pagesPerSequence).fill(-1)
  const [positions, slots]: [number[], number[]] = [[], []]
  const writers = new Map<number, number>()
  sequences.forEach(({ pages, length, newTokens }, s) => {
    for (let i = 0; i < used[s]!; i++) pageTable[s * pagesPerSequence + i] = pages[i]!
    for (let position = length - newTokens; position < length; position++) {
      const page = pages[Math.floor(position / KV_PAGE_TOKENS)]!
      const writer = writers.get(page) ?? s
      const wanted = `page ${page} to take new tokens of one sequence`
      expect(writer === s, `${what}, sequence ${s}`, wanted, `those of sequence ${writer}, too`)
      writers.set(page, s)
      positions.push(position)
      slots.push(page * KV_PAGE_TOKENS + (position % KV_PAGE_TOKENS))
    }
  })
  return {
    pageTable,
    pagesPerSequence,
    lengths: Int32Array.from(sequences, ({ length }) => length),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(slots),
  }
}

/** Returns the pages that it uses. */
function checkSequence(
  cache: CudaKvCache,
  { pages, length, newTokens }: KvSequence & { readonly newTokens: number },
  name: string,
  columns = cache.pages,
): number {
  expectWhole(name, 'its length', length, 0, columns * KV_PAGE_TOKENS)
  expectWhole(name, 'its new tokens', newTokens, 0, length)
  const used = Math.ceil(length / KV_PAGE_TOKENS)
  expect(pages.length >= used, name, `${used} pages for ${length} tokens`, pages.length)
  for (let i = 0; i < used; i++) expectWhole(name, `page ${i}`, pages[i]!, 0, cache.pages - 1)
  return used
}
