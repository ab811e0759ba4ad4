import { seededUniform } from '@fireq/model'
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
  const random = seededUniform(seed)
  const order = Uint32Array.from({ length: total }, (_, i) => i)
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(random() * (total - i))
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return [...order.subarray(0, count)]
}
