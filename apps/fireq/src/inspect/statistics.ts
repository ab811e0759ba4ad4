import type { ListedTensor } from './listing.js'
import { rowBlocks } from './rows.js'

export interface ValueStatistics {
  readonly min: number
  readonly max: number
  readonly mean: number
  /** √(mean of squares). */
  readonly rms: number
  /** NaN and infinities, which the others leave out. */
  readonly notFinite: number
}

/** Statistics of a tensor's values, read in blocks; undefined for types without any. */
export async function valueStatistics(
  tensor: ListedTensor,
  signal?: AbortSignal,
): Promise<ValueStatistics | undefined> {
  if (!tensor.read || tensor.values === 0) return undefined
  let [min, max, sum, squares, notFinite] = [Infinity, -Infinity, 0, 0, 0]
  for (const rows of rowBlocks(tensor)) {
    signal?.throwIfAborted()
    for (const value of await tensor.read(rows)) {
      if (!Number.isFinite(value)) {
        notFinite++
        continue
      }
      if (value < min) min = value
      if (value > max) max = value
      sum += value
      squares += value * value
    }
  }
  const count = tensor.values - notFinite
  if (count === 0) return { min: Number.NaN, max: Number.NaN, mean: Number.NaN, rms: Number.NaN, notFinite }
  return { min, max, mean: sum / count, rms: Math.sqrt(squares / count), notFinite }
}
