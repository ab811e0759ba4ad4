import { pairOfChannel } from './key-statistics.js'
import { keyChannels, type LayerGeometry, type LayerWeights } from './layer.js'
import { inverse, scaleRows, scaleVector, spread } from './matrix.js'

/**
 * Folds a scale common to both partners of each key pair into k, and its inverse into all query heads of the group:
 * RoPE's rotation of a pair commutes with it, so every score stays as it was.
 */
export function foldPairs(layer: LayerWeights, geometry: LayerGeometry, pairScale: Float64Array): LayerWeights {
  const keyScale = spread(pairScale, pairOfChannel(geometry))
  const queryScale = spread(inverse(keyScale), keyChannels(geometry))
  return {
    ...layer,
    q: scaleRows('q', layer.q, queryScale),
    qBias: scaleVector('qBias', layer.qBias, queryScale),
    k: scaleRows('k', layer.k, keyScale),
    kBias: scaleVector('kBias', layer.kBias, keyScale),
  }
}
