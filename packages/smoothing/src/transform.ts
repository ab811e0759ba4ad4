import type { LayerWeights } from './layer.js'
import type { FoldingPlan } from './plan.js'

/** What a transform returns: new weights (tensors it didn't touch are shared with the input) and what it folded. */
export interface Smoothed {
  readonly weights: LayerWeights
  readonly plan: FoldingPlan
}

/**
 * The factor that brings a channel from its statistic (a maximum or mean magnitude) to the target. A dead channel, one
 * whose statistic is zero or below 2⁻⁶⁴ of the target, keeps the factor 1: there is nothing in it to smooth, and the
 * inverse factor would push its producer out of float32's range.
 */
export function factorTowards(target: number, statistic: number): number {
  return statistic <= target * 2 ** -64 ? 1 : target / statistic
}
