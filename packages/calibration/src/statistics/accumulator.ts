/**
 * Watches an activation a batch of rows at a time and keeps a summary whose size doesn't depend on how much it has seen:
 * channel maxima, a histogram, XᵀX. A new statistic is a class of this shape; whoever runs layers takes any of them.
 */
export interface Accumulator<Summary> {
  /**
   * Takes more rows, [T, columns] row-major; they aren't kept.
   * @throws RangeError where the length isn't a whole number of rows, or a value isn't finite
   */
  add(rows: Float32Array): void
  /** What was seen so far. Later rows don't change it. */
  summary(): Summary
}

/** How many rows `values` holds. @throws RangeError where it isn't a whole number */
export function countRows(values: Float32Array, columns: number): number {
  const rows = values.length / columns
  if (!Number.isInteger(rows)) {
    throw new RangeError(`Expected rows of ${columns} values but received ${values.length} values`)
  }
  return rows
}

/** @throws RangeError naming the first channel whose statistic isn't finite */
export function checkFinite(statistic: Float64Array, rows: number): void {
  const channel = statistic.findIndex((value) => !Number.isFinite(value))
  if (channel >= 0) {
    throw new RangeError(`Expected finite activations but channel ${channel} is not, within the first ${rows} rows`)
  }
}

/** @throws RangeError unless `value` is a positive whole number */
export function checkPositive(what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(`Expected a positive whole number for ${what} but received ${value}`)
  }
}
