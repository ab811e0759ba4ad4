import { E4M3_LEAST, E4M3_MAX } from '../numbers/e4m3.js'
import { groupAmax } from './absmax.js'
import { checkGroups, checkWeights } from './check.js'

/** The largest exponent of a tensor scale. */
export const MAX_TENSOR_SCALE_EXPONENT: number = 14

/** A group whose max|w| is below this has a σ below E4M3's least positive value. */
const LEAST_AMAX = 7 * E4M3_LEAST

/**
 * Chooses the exponent i of the tensor scale 2^i that multiplies the weights before their E4M3 scales are taken, so that
 * small scales don't underflow (FireQ, arXiv 2505.20839, "σFP8"). i runs from 0 to 14 and stops before any group's
 * amax·2^i passes 448; the slack of i is Σ max(0, 7·2⁻⁹ − amax·2^i)/(7·2⁻⁹) over the groups; the result is the smallest i
 * of the least slack.
 *
 * @param weights [N, K], finite
 * @returns i in 0…14
 */
export function chooseTensorScale(weights: Float32Array, shape: readonly [number, number], groupSize: number): number {
  checkGroups(shape, groupSize)
  checkWeights(weights, shape)
  const amaxes = new Float32Array(weights.length / groupSize)
  let largest = 0
  for (let g = 0; g < amaxes.length; g++) {
    amaxes[g] = groupAmax(weights, g * groupSize, (g + 1) * groupSize)
    largest = Math.max(largest, amaxes[g])
  }

  let best = 0
  let leastSlack = Infinity
  for (let i = 0; i <= MAX_TENSOR_SCALE_EXPONENT; i++) {
    const factor = 2 ** i
    if (i > 0 && largest * factor > E4M3_MAX) break
    let slack = 0
    for (const amax of amaxes) slack += Math.max(0, LEAST_AMAX - amax * factor) / LEAST_AMAX
    if (slack < leastSlack) {
      leastSlack = slack
      best = i
    }
  }
  return best
}
