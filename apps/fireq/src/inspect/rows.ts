import type { ListedTensor } from './listing.js'

/** Values read at once. */
const BLOCK = 2 ** 22

/** Row ranges of a tensor that hold few enough values to have in memory; one without bounds for what has no rows. */
export function rowBlocks({ shape, values }: Pick<ListedTensor, 'shape' | 'values'>): ([number, number] | undefined)[] {
  if (values === 0) return []
  if (shape.length < 2) return [undefined]
  const [rows] = shape
  const step = Math.max(1, Math.floor((BLOCK * rows) / values))
  return Array.from({ length: Math.ceil(rows / step) }, (_, i) => [i * step, Math.min((i + 1) * step, rows)])
}
