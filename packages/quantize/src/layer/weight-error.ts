/** How far a rounded weight is from what was rounded. */
export interface WeightError {
  /** ‖W − Ŵ‖ / ‖W‖ (Frobenius); 0 where both are zero. */
  readonly relative: number
  /** Signal to noise in dB, −20·log₁₀ of it; absent where there is no error at all. */
  readonly snr?: number
}

/** @param rounded as many values as `original` */
export function weightError(original: Float32Array, rounded: Float32Array): WeightError {
  let [signal, noise] = [0, 0]
  for (let i = 0; i < original.length; i++) {
    const difference = original[i] - rounded[i]
    signal += original[i] * original[i]
    noise += difference * difference
  }
  if (noise === 0) return { relative: 0 }
  const relative = Math.sqrt(noise / signal)
  return { relative: significant(relative), snr: significant(-20 * Math.log10(relative)) }
}

/** Six digits: enough to read, and short in a file. */
function significant(value: number): number {
  return Number(value.toPrecision(6))
}
