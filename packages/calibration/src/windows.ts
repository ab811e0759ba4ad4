import { checkPositive } from './statistics/accumulator.js'

export interface WindowOptions {
  /** Windows wanted. */
  readonly count: number
  /** Tokens a window. */
  readonly length: number
  /** Which windows: equal seeds choose equal windows. Default 0. */
  readonly seed?: number
}

/**
 * Chooses calibration windows from a token stream: the stream is cut into windows that don't overlap, and `count` of them
 * are drawn by a seeded shuffle. The first windows of a file are its first documents, and often alike: statistics of them
 * miss channels that other texts use.
 *
 * @returns `count` windows, each a copy of `length` ids
 * @throws RangeError where the stream is too short
 */
export function calibrationWindows(ids: Int32Array, { count, length, seed = 0 }: WindowOptions): Int32Array[] {
  checkPositive('the number of calibration windows', count)
  checkPositive('the length of a calibration window', length)
  const available = Math.floor(ids.length / length)
  if (available < count) {
    throw new RangeError(
      `Expected at least ${count * length} tokens for ${count} calibration windows of ${length} but received ${ids.length}`,
    )
  }
  return firstOfShuffle(available, count, seed).map((i) => ids.slice(i * length, (i + 1) * length))
}

/** The first `count` of a shuffled 0 … total − 1 (Fisher–Yates). */
function firstOfShuffle(total: number, count: number, seed: number): number[] {
  const random = randomNumbers(seed)
  const order = Uint32Array.from({ length: total }, (_, i) => i)
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random() * (total - i))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return [...order.subarray(0, count)]
}

/** Mulberry32 (Tommy Ettinger, public domain): numbers in [0, 1) from a seed of 32 bits, the same on every machine. */
function randomNumbers(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
