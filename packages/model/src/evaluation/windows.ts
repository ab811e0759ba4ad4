import { ModelError } from '../errors.js'

/**
 * GPTQ's evaluation windows: the stream of ids cut into pieces of `windowSize`, one after another and without overlap,
 * as they are (no BOS is added), the remainder dropped.
 * @throws ModelError if the stream is shorter than one window
 */
export function tokenWindows(ids: ArrayLike<number>, windowSize: number): Int32Array[] {
  if (!Number.isInteger(windowSize) || windowSize < 2) {
    throw new ModelError(`Expected a window of at least 2 tokens but received ${windowSize}`)
  }
  const count = Math.floor(ids.length / windowSize)
  if (count === 0)
    throw new ModelError(`Expected at least ${windowSize} tokens for a window but received ${ids.length}`)
  const stream = Int32Array.from(ids)
  return Array.from({ length: count }, (_, i) => stream.slice(i * windowSize, (i + 1) * windowSize))
}
