import { notFinite } from './check.js'
import type { Matrix } from './layer.js'

/** A new matrix whose row r is multiplied by factors[r]. `name` says which matrix an error is about. */
export function scaleRows(name: string, { rows, columns, data }: Matrix, factors: Float64Array): Matrix {
  const out = new Float32Array(data.length)
  for (let r = 0, i = 0; r < rows; r++) {
    const factor = factors[r]
    for (let c = 0; c < columns; c++, i++) out[i] = data[i] * factor
  }
  return checkFinite(name, { rows, columns, data: out })
}

/** A new matrix whose column c is multiplied by factors[c]. */
export function scaleColumns(name: string, { rows, columns, data }: Matrix, factors: Float64Array): Matrix {
  const out = new Float32Array(data.length)
  for (let r = 0, i = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++, i++) out[i] = data[i] * factors[c]
  }
  return checkFinite(name, { rows, columns, data: out })
}

/** The matrix itself, or an error that names its first element that isn't finite. */
export function checkFinite(name: string, matrix: Matrix): Matrix {
  const { columns, data } = matrix
  // x·0 is 0 for every finite x and NaN for all others, so one sum tests them all.
  let zero = 0
  for (let i = 0; i < data.length; i++) zero += data[i] * 0
  if (zero === 0) return matrix
  const bad = data.findIndex((value) => !Number.isFinite(value))
  throw notFinite(`${name}[${Math.floor(bad / columns)}, ${bad % columns}]`, data[bad])
}

/** A new vector, element by element times its factor; undefined (an absent bias) stays so. */
export function scaleVector<V extends Float32Array | undefined>(name: string, values: V, factors: Float64Array): V {
  return values?.map((value, i) => {
    const scaled = Math.fround(value * factors[i])
    if (!Number.isFinite(scaled)) throw notFinite(`${name}[${i}]`, scaled)
    return scaled
  }) as V
}

/** 1/s; a fold multiplies one side by s and the other by this. */
export function inverse(scale: Float64Array): Float64Array {
  return scale.map((s) => 1 / s)
}

/** The elements of `scale` that `index` points at: a tied scale spread over the channels it's shared by. */
export function spread(scale: Float64Array, index: Int32Array): Float64Array {
  return Float64Array.from(index, (i) => scale[i])
}
