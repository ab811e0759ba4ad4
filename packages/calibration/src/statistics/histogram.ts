import type { Accumulator } from './accumulator.js'

/** Magnitudes from ≤ |x| < to. */
export interface HistogramBin {
  readonly from: number
  readonly to: number
  readonly count: number
}

export interface Histogram {
  /** Values seen, zeros included. */
  readonly count: number
  readonly zeros: number
  /** Without gaps from the first bin that isn't empty to the last; empty if only zeros were seen. */
  readonly bins: readonly HistogramBin[]
}

/** Bits of the fraction that a bin's number keeps: four bins an octave. */
const FRACTION_BITS = 2
const SHIFT = 23 - FRACTION_BITS
const BINS = 1 << (8 + FRACTION_BITS)
/** The first bin of infinity and NaN. */
const NOT_FINITE = 255 << FRACTION_BITS

/**
 * How often each magnitude occurs, in four bins an octave over all of FP32: a bin's number is the exponent and the first
 * two fraction bits of the number itself, so that binning is a shift and histograms of different activations line up.
 */
export class HistogramAccumulator implements Accumulator<Histogram> {
  readonly #counts = new Float64Array(BINS)
  #zeros = 0

  add(values: Float32Array): void {
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
    for (const word of bits) {
      const magnitude = word & 0x7fffffff
      if (magnitude === 0) this.#zeros++
      else this.#counts[magnitude >>> SHIFT]++
    }
    for (let bin = NOT_FINITE; bin < BINS; bin++) {
      if (this.#counts[bin] > 0) throw new RangeError('Expected finite activations but received an infinity or NaN')
    }
  }

  summary(): Histogram {
    const first = this.#counts.findIndex((count) => count > 0)
    const last = this.#counts.findLastIndex((count) => count > 0)
    const bins: HistogramBin[] = []
    for (let bin = first; first >= 0 && bin <= last; bin++) {
      bins.push({ from: lowerEdge(bin), to: lowerEdge(bin + 1), count: this.#counts[bin] })
    }
    return { count: this.#zeros + bins.reduce((sum, { count }) => sum + count, 0), zeros: this.#zeros, bins }
  }
}

/** The least magnitude of a bin: the FP32 number that has the bin's number for its first bits. */
function lowerEdge(bin: number): number {
  return bin >= NOT_FINITE ? 2 ** 128 : new Float32Array(Uint32Array.of(bin << SHIFT).buffer)[0]
}
