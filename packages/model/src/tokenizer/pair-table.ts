const FIELDS = 4
const RANK = 2
const MERGED = 3
const EMPTY = -1

/**
 * The merges of a BPE model: (left id, right id) → (rank, merged id). Open addressing in one Int32Array of four fields
 * a slot, because a Map of some 10⁵ pairs keyed by number boxes every key and is several times slower to read.
 */
export class PairTable {
  #slots: Int32Array
  #mask: number
  #size = 0

  /** @param expected about how many pairs will come; more are fine. */
  constructor(expected = 1024) {
    const slots = 2 ** Math.ceil(Math.log2(Math.max(16, 1.6 * expected)))
    this.#slots = new Int32Array(FIELDS * slots).fill(EMPTY)
    this.#mask = slots - 1
  }

  get size(): number {
    return this.#size
  }

  /** Adds a pair; a pair seen before takes the new rank. */
  set(left: number, right: number, rank: number, merged: number): void {
    if (4 * this.#size > 3 * this.#mask) this.#grow()
    const at = this.#locate(left, right)
    if (this.#slots[at + RANK] === EMPTY) this.#size++
    this.#slots[at] = left
    this.#slots[at + 1] = right
    this.#slots[at + RANK] = rank
    this.#slots[at + MERGED] = merged
  }

  /** The pair's rank (lower merges first), or -1 if it doesn't merge. */
  rank(left: number, right: number): number {
    return this.#slots[this.#locate(left, right) + RANK]
  }

  /** The id that the pair merges to, or -1. */
  merged(left: number, right: number): number {
    return this.#slots[this.#locate(left, right) + MERGED]
  }

  /** Where the pair is, or the free slot where it would go. */
  #locate(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)
    hash ^= hash >>> 15
    for (let slot = hash & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = FIELDS * slot
      if (this.#slots[at + RANK] === EMPTY) return at
      if (this.#slots[at] === left && this.#slots[at + 1] === right) return at
    }
  }

  #grow(): void {
    const old = this.#slots
    this.#slots = new Int32Array(2 * old.length).fill(EMPTY)
    this.#mask = 2 * this.#mask + 1
    this.#size = 0
    for (let at = 0; at < old.length; at += FIELDS) {
      if (old[at + RANK] !== EMPTY) this.set(old[at], old[at + 1], old[at + RANK], old[at + MERGED])
    }
  }
}
