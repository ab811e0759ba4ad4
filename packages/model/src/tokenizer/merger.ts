import { MinHeap } from './min-heap.js'
import type { PairTable } from './pair-table.js'

/** A heap key is rank · 2³² + position: the lowest rank first, the leftmost among equals. Exact below 2⁵³. */
const POSITIONS = 2 ** 32

/** Pieces up to this long share one set of working arrays. */
const SHARED_LENGTH = 1024

class Workspace {
  readonly next: Int32Array
  readonly previous: Int32Array
  readonly ranks: Int32Array
  readonly heap: MinHeap

  constructor(length: number) {
    this.next = new Int32Array(length)
    this.previous = new Int32Array(length)
    this.ranks = new Int32Array(length)
    // At most length - 1 pairs to begin with, and each of at most length - 1 merges takes one out and puts two in.
    this.heap = new MinHeap(2 * length)
  }
}

/**
 * Byte pair encoding: joins the adjacent pair of lowest rank, the leftmost among equals, until no pair merges.
 *
 * Symbols form a linked list and pairs wait in a heap, so n symbols take O(n log n). A pair that a neighbour's merge
 * changed stays in the heap and is recognised when it surfaces: its rank is no longer the one at its position.
 */
export class Merger {
  #table: PairTable
  #shared: Workspace = new Workspace(SHARED_LENGTH)

  constructor(table: PairTable) {
    this.#table = table
  }

  /** Merges `symbols[0..count)` in place and returns how many are left. Ids below 0 never merge. */
  merge(symbols: Int32Array, count: number): number {
    if (count < 2) return count
    const table = this.#table
    const { next, previous, ranks, heap } = count <= SHARED_LENGTH ? this.#shared : new Workspace(count)

    const rankPair = (left: number) => {
      const right = next[left]
      const rank = right < count ? table.rank(symbols[left], symbols[right]) : -1
      ranks[left] = rank
      if (rank >= 0) heap.push(rank * POSITIONS + left)
    }

    for (let at = 0; at < count; at++) {
      next[at] = at + 1
      previous[at] = at - 1
      rankPair(at)
    }
    while (heap.size > 0) {
      const key = heap.pop()
      const left = key >>> 0 // modulo 2³²
      if (ranks[left] !== Math.floor(key / POSITIONS)) continue
      const right = next[left]
      symbols[left] = table.merged(symbols[left], symbols[right])
      ranks[right] = -1
      next[left] = next[right]
      if (next[left] < count) previous[next[left]] = left
      rankPair(left)
      if (previous[left] >= 0) rankPair(previous[left])
    }

    let kept = 0
    for (let at = 0; at < count; at = next[at]) symbols[kept++] = symbols[at]
    return kept
  }
}
