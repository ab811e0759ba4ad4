import { checkFactor, checkLayer } from './check.js'
import { foldPairs } from './fold-pairs.js'
import { checkStatistics, type KeyStatistics } from './key-statistics.js'
import type { LayerGeometry, LayerWeights } from './layer.js'
import { summarize } from './plan.js'
import { factorTowards, type Smoothed } from './transform.js'

export interface PreRopeOptions {
  /** What the largest norm of a pair becomes, positive. */
  readonly alpha: number
  /** Pairs g·D/2 + i to leave alone: those that post-RoPE scaling handles, if and only if it is on. */
  readonly skipPairs?: ReadonlySet<number>
}

/**
 * FireQ's pre-RoPE normalization (arXiv 2505.20839): per key-value head and pair (i, i + D/2), with n_i the pair's
 * largest norm over the calibration tokens, both rows of k are multiplied by α/n_i and the matching rows of every query
 * head of the group by n_i/α. Folded into the weights, free at run time. Dead pairs (n_i = 0) are left alone.
 */
export function preRopeNormalization(
  layer: LayerWeights,
  geometry: LayerGeometry,
  stats: KeyStatistics,
  options: PreRopeOptions,
): Smoothed {
  checkLayer(layer, geometry)
  const s = preRopeScales(stats, geometry, options)
  return {
    weights: foldPairs(layer, geometry, s),
    plan: [
      {
        what: 'pre-RoPE normalization',
        rule: `s = ${options.alpha} / max pair norm`,
        producer: 'k rows × s',
        consumer: 'q rows ÷ s',
        axis: 'key pairs',
        scale: summarize(s),
      },
    ],
  }
}

/** The factor α/n_i of every key pair, [Hkv·D/2]; 1 for dead and skipped ones. For scaleStatistics, and for reading. */
export function preRopeScales(
  stats: KeyStatistics,
  geometry: LayerGeometry,
  { alpha, skipPairs }: PreRopeOptions,
): Float64Array {
  checkStatistics(stats, geometry)
  checkFactor('alpha', alpha)
  for (const pair of skipPairs ?? []) {
    if (!Number.isSafeInteger(pair) || pair < 0 || pair >= stats.pairNorm.length) {
      throw new RangeError(`Expected pairs below ${stats.pairNorm.length} for skipPairs but received ${pair}`)
    }
  }
  return Float64Array.from(stats.pairNorm, (norm, i) => (skipPairs?.has(i) ? 1 : factorTowards(alpha, norm)))
}
