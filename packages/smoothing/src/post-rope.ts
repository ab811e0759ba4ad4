import { checkFactor } from './check.js'
import { type KeyStatistics, pairOfChannel, selectOutlierPairs } from './key-statistics.js'
import type { LayerGeometry } from './layer.js'
import { type FoldingPlan, summarize } from './plan.js'
import { factorTowards } from './transform.js'

export interface PostRopeOptions {
  /** What the largest magnitude of a handled channel becomes, positive. */
  readonly beta: number
  /** How many channels per key-value head are taken as outliers, 1…headDim. Their partners come along. */
  readonly topK: number
}

/**
 * FireQ's post-RoPE scaling (arXiv 2505.20839): per key-value head the topK channels by max|K| after RoPE, and their
 * partners, each get the scale β/max|K| of their own; all other channels, and dead ones, get 1. It doesn't commute with
 * RoPE, so it is done at run time: K × keyScale and Q ÷ keyScale, for all query heads of the group, after RoPE.
 *
 * The statistics are those of the keys as they'll be then. Statistics from before preRopeNormalization serve as well if
 * that skipped the pairs of selectOutlierPairs with the same statistics and topK; otherwise scaleStatistics corrects
 * them.
 *
 * @returns keyScale [Hkv·D], for the run-time op scaleKeys
 */
export function postRopeScaling(
  stats: KeyStatistics,
  geometry: LayerGeometry,
  { beta, topK }: PostRopeOptions,
): { keyScale: Float32Array; plan: FoldingPlan } {
  const selected = selectOutlierPairs(stats, geometry, topK)
  checkFactor('beta', beta)
  const pairs = pairOfChannel(geometry)
  const keyScale = stats.postRopeAbsMax.map((max, channel) => {
    return selected.has(pairs[channel]) ? factorTowards(beta, max) : 1
  })
  return {
    keyScale,
    plan: [
      {
        what: 'post-RoPE scaling',
        rule: `s = ${beta} / max|K|, top ${topK} and partners`,
        producer: 'keys × s, online',
        consumer: 'queries ÷ s, online',
        axis: 'key channels',
        scale: summarize(keyScale),
      },
    ],
  }
}
