/** log Σ exp(logits), in FP64. */
export function logSumExp(logits: Float32Array): number {
  let max = -Infinity
  for (let i = 0; i < logits.length; i++) if (logits[i]! > max) max = logits[i]!
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i]! - max)
  return max + Math.log(sum)
}

/** Index of the largest value, the first of equals. */
export function argMax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}

/** Kullback–Leibler divergence KL(softmax(base) ‖ softmax(other)) in nats, in FP64. */
export function klOfLogits(base: Float32Array, other: Float32Array): number {
  const [baseNorm, otherNorm] = [logSumExp(base), logSumExp(other)]
  let sum = 0
  for (let i = 0; i < base.length; i++) {
    const logP = base[i]! - baseNorm
    const p = Math.exp(logP)
    if (p > 0) sum += p * (logP - (other[i]! - otherNorm))
  }
  return sum
}
