import { channelWiseScaling } from './channel-wise.js'
import { checkLayer } from './check.js'
import { type KeyStatistics, selectOutlierPairs } from './key-statistics.js'
import type { LayerGeometry, LayerWeights } from './layer.js'
import type { FoldingStep } from './plan.js'
import { postRopeScaling } from './post-rope.js'
import { preRopeNormalization } from './pre-rope.js'
import type { SmoothingRecipe } from './recipe.js'
import { tiedPartnerScaling } from './tied-partner.js'
import type { Smoothed } from './transform.js'
import { valueMultiplier } from './value-multiplier.js'

export interface SmoothedLayer extends Smoothed {
  /** [Hkv·D], if the recipe has post-RoPE scaling at run time: without it the new weights are another function. */
  readonly keyScale?: Float32Array
}

/**
 * Applies a recipe to one layer, in FireQ's order: value multiplier, channel-wise scaling, pre-RoPE normalization of
 * the pairs that post-RoPE scaling doesn't handle (of all, if that is off), post-RoPE scaling of those it does.
 *
 * One set of statistics, of the unsmoothed layer, serves all steps: the first two leave the keys as they are, and the
 * last two touch disjoint pairs.
 *
 * @param stats may be undefined where the recipe has neither preRope nor postRope
 */
export function smoothLayer(
  layer: LayerWeights,
  geometry: LayerGeometry,
  stats: KeyStatistics | undefined,
  recipe: SmoothingRecipe,
): SmoothedLayer {
  checkLayer(layer, geometry)
  let weights = layer
  const plan: FoldingStep[] = []
  const take = (smoothed: Smoothed) => {
    weights = smoothed.weights
    plan.push(...smoothed.plan)
  }

  const { valueMultiplier: multiplier, channelWise, preRope, postRope } = recipe
  if (multiplier !== undefined) take(valueMultiplier(weights, geometry, multiplier))
  if (channelWise) take(channelWiseScaling(weights, geometry, channelWise))
  if (!preRope && !postRope) return { weights, plan }

  if (!stats) throw new TypeError('Expected key statistics for preRope and postRope but received undefined')
  const skipPairs = postRope && selectOutlierPairs(stats, geometry, postRope.topK)
  if (preRope) take(preRopeNormalization(weights, geometry, stats, { alpha: preRope.alpha, skipPairs }))
  if (!postRope) return { weights, plan }

  const { partners = 'own' } = postRope
  if (partners === 'tied') {
    take(tiedPartnerScaling(weights, geometry, stats, postRope))
    return { weights, plan }
  }
  if (partners !== 'own') {
    throw new RangeError(`Expected own or tied for the partners of postRope but received ${String(partners)}`)
  }
  const online = postRopeScaling(stats, geometry, postRope)
  return { weights, plan: [...plan, ...online.plan], keyScale: online.keyScale }
}
