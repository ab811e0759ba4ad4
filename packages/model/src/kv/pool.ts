import { KvPoolFullError, ModelError } from '../errors.js'

/** The pages that hold a sequence's tokens, first to last. Only the pool that made it changes it. */
export interface KvSequence {
  readonly pages: readonly number[]
  /** Tokens in the cache. */
  readonly length: number
}

class PooledSequence implements KvSequence {
  readonly pages: number[] = []
  length = 0
}

/**
 * Who owns which page of a KV cache. Token p of a sequence lies in its page ⌊p / pageSize⌋ at offset p mod pageSize.
 * The pool holds no tensor: it serves any backend's cache of `pages` pages.
 */
export class KvPool {
  readonly pages: number
  readonly pageSize: number
  readonly #free: number[]
  readonly #open: Map<KvSequence, PooledSequence> = new Map()

  constructor(pages: number, pageSize: number) {
    for (const [name, value] of Object.entries({ pages, pageSize })) {
      if (!Number.isInteger(value) || value < 1) {
        throw new ModelError(`Expected ${name} of a KV pool to be a whole number ≥ 1 but received ${value}`)
      }
    }
    this.pages = pages
    this.pageSize = pageSize
    this.#free = Array.from({ length: pages }, (_, i) => pages - 1 - i)
  }

  get freePages(): number {
    return this.#free.length
  }

  /** Tokens that fit into the whole pool. */
  get capacity(): number {
    return this.pages * this.pageSize
  }

  /** A new, empty sequence; it owns no page yet. Give it back with `close`. */
  open(): KvSequence {
    const sequence = new PooledSequence()
    this.#open.set(sequence, sequence)
    return sequence
  }

  /**
   * Makes room for `count` more tokens: all of them or none.
   * @throws KvPoolFullError if the free pages don't suffice
   */
  append(sequence: KvSequence, count: number): void {
    const owned = this.#owned(sequence)
    if (!Number.isInteger(count) || count < 0) {
      throw new ModelError(`Expected a whole number of tokens ≥ 0 to append but received ${count}`)
    }
    const needed = Math.ceil((owned.length + count) / this.pageSize) - owned.pages.length
    if (needed > this.#free.length) {
      throw new KvPoolFullError(
        `Expected ${needed} free pages of ${this.pageSize} tokens for ${count} more after ${owned.length}, ` +
          `but ${this.#free.length} of ${this.pages} are free`,
      )
    }
    for (let i = 0; i < needed; i++) owned.pages.push(this.#free.pop()!)
    owned.length += count
  }

  /** Forgets the tokens from `length` on and frees the pages that held only them. */
  truncate(sequence: KvSequence, length: number): void {
    const owned = this.#owned(sequence)
    if (!Number.isInteger(length) || length < 0 || length > owned.length) {
      throw new ModelError(`Expected a length from 0 to ${owned.length} to truncate to but received ${length}`)
    }
    const kept = Math.ceil(length / this.pageSize)
    this.#free.push(...owned.pages.splice(kept).reverse())
    owned.length = length
  }

  /** Gives back all pages of a sequence. Safe to call twice. */
  close(sequence: KvSequence): void {
    if (!this.#open.has(sequence)) return
    this.truncate(sequence, 0)
    this.#open.delete(sequence)
  }

  /** Throws if a page is lost, owned twice, or held without need: a bug, whatever the callers did. */
  checkIntegrity(): void {
    const owners = new Int32Array(this.pages)
    const count = (page: number): void => {
      if (!Number.isInteger(page) || page < 0 || page >= this.pages)
        throw new Error(`KV pool: there is no page ${page}`)
      owners[page]!++
    }
    this.#free.forEach(count)
    for (const { pages, length } of this.#open.values()) {
      pages.forEach(count)
      if (pages.length !== Math.ceil(length / this.pageSize)) {
        throw new Error(`KV pool: a sequence of ${length} tokens holds ${pages.length} pages of ${this.pageSize}`)
      }
    }
    const wrong = owners.findIndex((n) => n !== 1)
    if (wrong >= 0) throw new Error(`KV pool: page ${wrong} has ${owners[wrong]} owners`)
  }

  #owned(sequence: KvSequence): PooledSequence {
    const owned = this.#open.get(sequence)
    if (owned === undefined)
      throw new ModelError('Expected an open sequence of this KV pool but it is closed, or not its own')
    return owned
  }
}
