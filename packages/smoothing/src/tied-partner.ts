import { checkFactor, checkLayer } from './check.js'
import { foldPairs } from './fold-pairs.js'
import { type KeyStatistics, pairOfChannel, selectOutlierPairs } from './key-statistics.js'
import type { LayerGeometry, LayerWeights } from './layer.js'
import { summarize } from './plan.js'
import type { PostRopeOptions } from './post-rope.js'
import { factorTowards, type Smoothed } from './transform.js'

/**
 * Post-RoPE scaling that needs nothing at run time, for engines without such an op: the two partners of a pair are tied
 * to one scale, β over the larger of their max|K| after RoPE. Such a scale commutes with RoPE and is folded into k and
 * q. The same channels as in postRopeScaling end at or below β; what is lost is the scale of the partner's own.
 */
export function tiedPartnerScaling(
  layer: LayerWeights,
  geometry: LayerGeometry,
  stats: KeyStatistics,
  options: PostRopeOptions,
): Smoothed {
  checkLayer(layer, geometry)
  const s = tiedPartnerScales(stats, geometry, options)
  return {
    weights: foldPairs(layer, geometry, s),
    plan: [
      {
        what: 'tied-partner scaling',
        rule: `s = ${options.beta} / max|K| of the pair, top ${options.topK}`,
        producer: 'k rows × s',
        consumer: 'q rows ÷ s',
        axis: 'key pairs',
        scale: summarize(s),
      },
    ],
  }
}

/** The factor of every key pair, [Hkv·D/2]; 1 for pairs that aren't selected and for dead ones. */
export function tiedPartnerScales(
  stats: KeyStatistics,
  geometry: LayerGeometry,
  { beta, topK }: PostRopeOptions,
): Float64Array {
  const selected = selectOutlierPairs(stats, geometry, topK)
  checkFactor('beta', beta)
  const largest = new Float64Array(stats.pairNorm.length)
  pairOfChannel(geometry).forEach((pair, channel) => {
    largest[pair] = Math.max(largest[pair], stats.postRopeAbsMax[channel])
  })
  return largest.map((max, pair) => (selected.has(pair) ? factorTowards(beta, max) : 1))
}
