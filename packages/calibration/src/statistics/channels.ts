import { type Accumulator, checkFinite, checkPositive, countRows } from './accumulator.js'

/** Per channel of an activation [T, columns]; all zero if no row was seen. */
export interface ChannelStatistics {
  /** T, over all batches. */
  readonly rows: number
  /** max |x|, [columns]. */
  readonly absMax: Float32Array
  /** mean |x|, [columns]. */
  readonly absMean: Float32Array
  /** mean x², [columns]. */
  readonly meanSquare: Float32Array
}

/** Magnitudes by channel, summed in FP64. */
export class ChannelAccumulator implements Accumulator<ChannelStatistics> {
  readonly #columns: number
  readonly #max: Float64Array
  readonly #sum: Float64Array
  readonly #squares: Float64Array
  #rows = 0

  constructor(columns: number) {
    checkPositive('the number of channels', columns)
    this.#columns = columns
    this.#max = new Float64Array(columns)
    this.#sum = new Float64Array(columns)
    this.#squares = new Float64Array(columns)
  }

  add(values: Float32Array): void {
    const rows = countRows(values, this.#columns)
    const [columns, max, sum, squares] = [this.#columns, this.#max, this.#sum, this.#squares]
    for (let at = 0; at < values.length; at += columns) {
      for (let c = 0; c < columns; c++) {
        const magnitude = Math.abs(values[at + c])
        if (magnitude > max[c]) max[c] = magnitude
        sum[c] += magnitude
        squares[c] += magnitude * magnitude
      }
    }
    this.#rows += rows
    checkFinite(sum, this.#rows) // a NaN never passes a maximum, but it stays in a sum
  }

  summary(): ChannelStatistics {
    const rows = Math.max(this.#rows, 1)
    return {
      rows: this.#rows,
      absMax: Float32Array.from(this.#max),
      absMean: Float32Array.from(this.#sum, (sum) => sum / rows),
      meanSquare: Float32Array.from(this.#squares, (sum) => sum / rows),
    }
  }
}
