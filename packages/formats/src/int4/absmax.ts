/** A group of zeros, or nearly, still gets a scale that can be divided by (FireQ, arXiv 2505.20839, published code). */
const LEAST_AMAX = 1e-5

/** max|w| of `weights[start … end)`. */
export function groupAmax(weights: Float32Array, start: number, end: number): number {
  let amax = 0
  for (let i = start; i < end; i++) {
    const magnitude = Math.abs(weights[i])
    if (magnitude > amax) amax = magnitude
  }
  return amax
}

/** FireQ's rule, σ = max(max|w|, 10⁻⁵)/7: nothing clips, and the code −8 stays unused. */
export function absmax(weights: Float32Array, start: number, end: number): number {
  return Math.max(groupAmax(weights, start, end), LEAST_AMAX) / 7
}
