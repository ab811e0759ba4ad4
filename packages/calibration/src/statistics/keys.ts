import { type Accumulator, checkFinite, checkPositive, countRows } from './accumulator.js'

/** What FireQ's key smoothing needs (arXiv 2505.20839), per key-value head, over all tokens seen. */
export interface KeyStatistics {
  /** T, over all batches. */
  readonly rows: number
  /** max √(k_i² + k_{i+D/2}²), [numKeyValueHeads · headDim/2]. RoPE rotates the pair, so it is the same before and after. */
  readonly pairNorm: Float32Array
  /** max |k_i| after RoPE, [numKeyValueHeads · headDim]. */
  readonly postRopeAbsMax: Float32Array
}

/** Keys after RoPE, [T, numKeyValueHeads · headDim], in Hugging Face's half-split order: channel i pairs with i + headDim/2. */
export class KeyAccumulator implements Accumulator<KeyStatistics> {
  readonly #headDim: number
  readonly #columns: number
  readonly #pairNorm: Float64Array
  readonly #postRopeAbsMax: Float64Array
  #rows = 0

  constructor(numKeyValueHeads: number, headDim: number) {
    checkPositive('numKeyValueHeads', numKeyValueHeads)
    checkPositive('headDim', headDim)
    if (headDim % 2 !== 0) throw new RangeError(`Expected an even headDim but received ${headDim}`)
    this.#headDim = headDim
    this.#columns = numKeyValueHeads * headDim
    this.#pairNorm = new Float64Array(this.#columns / 2)
    this.#postRopeAbsMax = new Float64Array(this.#columns)
  }

  add(values: Float32Array): void {
    this.#rows += countRows(values, this.#columns)
    const half = this.#headDim / 2
    for (let head = 0; head < values.length; head += this.#headDim) {
      const column = head % this.#columns
      for (let i = 0; i < half; i++) {
        const [a, b] = [values[head + i], values[head + half + i]]
        this.#postRopeAbsMax[column + i] = Math.max(this.#postRopeAbsMax[column + i], Math.abs(a))
        this.#postRopeAbsMax[column + half + i] = Math.max(this.#postRopeAbsMax[column + half + i], Math.abs(b))
        this.#pairNorm[column / 2 + i] = Math.max(this.#pairNorm[column / 2 + i], Math.sqrt(a * a + b * b))
      }
    }
    checkFinite(this.#postRopeAbsMax, this.#rows) // Math.max keeps a NaN
  }

  summary(): KeyStatistics {
    return {
      rows: this.#rows,
      pairNorm: Float32Array.from(this.#pairNorm),
      postRopeAbsMax: Float32Array.from(this.#postRopeAbsMax),
    }
  }
}
