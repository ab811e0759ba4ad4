import { checkFactor, checkLayer } from './check.js'
import type { LayerGeometry, LayerWeights } from './layer.js'
import { scaleColumns, scaleRows, scaleVector } from './matrix.js'
import { summarize } from './plan.js'
import type { Smoothed } from './transform.js'

/**
 * FireQ's v_mul: v (and its bias) times the multiplier, o divided by it.
 *
 * @param multiplier finite, not zero
 */
export function valueMultiplier(layer: LayerWeights, geometry: LayerGeometry, multiplier: number): Smoothed {
  checkLayer(layer, geometry)
  checkFactor('the value multiplier', multiplier, 'nonzero')
  const m = new Float64Array(layer.v.rows).fill(multiplier)
  return {
    weights: {
      ...layer,
      v: scaleRows('v', layer.v, m),
      vBias: scaleVector('vBias', layer.vBias, m),
      o: scaleColumns('o', layer.o, new Float64Array(layer.o.columns).fill(1 / multiplier)),
    },
    plan: [
      {
        what: 'value multiplier',
        rule: `s = ${multiplier}`,
        producer: 'v rows × s',
        consumer: 'o columns ÷ s',
        axis: 'value channels',
        scale: summarize(m),
      },
    ],
  }
}
