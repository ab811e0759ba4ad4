/**
 * A stream of numbers k / 2²⁴ in [0, 1), exact in FP32, that a seed fixes on every platform: SplitMix32 (Steele, Lea,
 * Flood 2014, with the 32-bit finalizer of MurmurHash3).
 * @param seed a whole number; its low 32 bits count
 */
export function seededUniform(seed: number): () => number {
  let state = seed | 0
  return () => {
    state = (state + 0x9e3779b9) | 0
    let z = state
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b)
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35)
    return ((z ^ (z >>> 16)) >>> 8) / 2 ** 24
  }
}
