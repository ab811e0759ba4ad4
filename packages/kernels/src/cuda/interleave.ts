// The order of a `siluMul` weight's rows: of every sixteen, eight of the first half (gate's) and the eight of the second (up's)
// that meet them, so that a warp holds both.

const EIGHT = 8

/** A value a row, in that order. */
export function interleave<T extends Uint16Array | Float32Array>(values: T): T {
  const half = values.length / 2
  return values.map((_, i) => values[sourceRow(i, half)]!) as T
}

/** Rows `first` … `first + rows − 1` of a matrix in that order; `first` and `rows` are multiples of 8. */
export function interleavedRows(matrix: Uint8Array, rowBytes: number, first: number, rows: number): Uint8Array {
  const half = matrix.length / rowBytes / 2
  const result = new Uint8Array(rows * rowBytes)
  for (let row = 0; row < rows; row += EIGHT) {
    const from = sourceRow(first + row, half)
    result.set(matrix.subarray(from * rowBytes, (from + EIGHT) * rowBytes), row * rowBytes)
  }
  return result
}

function sourceRow(row: number, half: number): number {
  return (row % 16 < EIGHT ? 0 : half) + Math.floor(row / 16) * EIGHT + (row % EIGHT)
}
