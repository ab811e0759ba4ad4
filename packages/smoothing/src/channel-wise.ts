import { type ChannelScaling, channelRule, channelScales } from './channel-scales.js'
import { checkLayer } from './check.js'
import { keyChannels, type LayerGeometry, type LayerWeights } from './layer.js'
import { inverse, scaleColumns, scaleRows, scaleVector, spread } from './matrix.js'
import { type FoldingStep, summarize } from './plan.js'
import type { Smoothed } from './transform.js'

/** Which inputs to scale; what is absent stays as it is. */
export interface ChannelWiseOptions {
  /** Input of q, k and v; the inverse goes into inputNorm. */
  readonly qkv?: ChannelScaling
  /** Input of o; the inverse goes into the rows of v, tied over the query heads of a key-value head. */
  readonly o?: ChannelScaling
  /** Input of gate and up; the inverse goes into postAttentionNorm. */
  readonly gateUp?: ChannelScaling
  /** Input of down; the inverse goes into the rows of up. */
  readonly down?: ChannelScaling
}

/**
 * Channel-wise scaling of the linear layers (FireQ, arXiv 2505.20839; weight-only): the columns of matrices that share
 * an input are multiplied by s, and whatever produces that input is divided by s.
 *
 * The steps run in the order qkv, o, gateUp, down. No step changes a matrix from which a later one takes its
 * statistics, so all statistics are those of the weights as given.
 *
 * o under grouped-query attention: query heads of one key-value head read the same value channel, so the columns
 * h·D + d of o for all h of the group share one factor, from the max or mean over all of those columns together.
 *
 * @throws on shapes that don't fit the geometry, an unusable constant, and values that aren't finite, before or after
 */
export function channelWiseScaling(
  layer: LayerWeights,
  geometry: LayerGeometry,
  options: ChannelWiseOptions,
): Smoothed {
  checkLayer(layer, geometry)
  let weights = layer
  const plan: FoldingStep[] = []
  const apply = (scaling: ChannelScaling | undefined, fold: Fold) => {
    if (!scaling) return
    const { tensors, step } = fold(weights, scaling, geometry)
    weights = { ...weights, ...tensors }
    plan.push(step)
  }
  apply(options.qkv, foldQkv)
  apply(options.o, foldO)
  apply(options.gateUp, foldGateUp)
  apply(options.down, foldDown)
  return { weights, plan }
}

type Fold = (
  weights: LayerWeights,
  scaling: ChannelScaling,
  geometry: LayerGeometry,
) => { tensors: Partial<LayerWeights>; step: FoldingStep }

const foldQkv: Fold = ({ inputNorm, q, k, v }, scaling) => {
  const s = channelScales('qkv', { q, k, v }, scaling)
  return {
    tensors: {
      inputNorm: scaleVector('inputNorm', inputNorm, inverse(s)),
      q: scaleColumns('q', q, s),
      k: scaleColumns('k', k, s),
      v: scaleColumns('v', v, s),
    },
    step: describe('qkv', scaling, 'inputNorm ÷ s', 'q, k, v columns × s', 'hiddenSize', s),
  }
}

const foldO: Fold = ({ v, vBias, o }, scaling, geometry) => {
  const ties = keyChannels(geometry)
  const s = channelScales('o', { o }, scaling, ties)
  return {
    tensors: {
      v: scaleRows('v', v, inverse(s)),
      vBias: scaleVector('vBias', vBias, inverse(s)),
      o: scaleColumns('o', o, spread(s, ties)),
    },
    step: describe('o', scaling, 'v rows ÷ s', 'o columns × s', 'value channels', s),
  }
}

const foldGateUp: Fold = ({ postAttentionNorm, gate, up }, scaling) => {
  const s = channelScales('gateUp', { gate, up }, scaling)
  return {
    tensors: {
      postAttentionNorm: scaleVector('postAttentionNorm', postAttentionNorm, inverse(s)),
      gate: scaleColumns('gate', gate, s),
      up: scaleColumns('up', up, s),
    },
    step: describe('gateUp', scaling, 'postAttentionNorm ÷ s', 'gate, up columns × s', 'hiddenSize', s),
  }
}

const foldDown: Fold = ({ up, upBias, down }, scaling) => {
  const s = channelScales('down', { down }, scaling)
  return {
    tensors: {
      up: scaleRows('up', up, inverse(s)),
      upBias: scaleVector('upBias', upBias, inverse(s)),
      down: scaleColumns('down', down, s),
    },
    step: describe('down', scaling, 'up rows ÷ s', 'down columns × s', 'intermediateSize', s),
  }
}

function describe(
  where: string,
  scaling: ChannelScaling,
  producer: string,
  consumer: string,
  axis: string,
  s: Float64Array,
): FoldingStep {
  return { what: `channel-wise ${where}`, rule: channelRule(scaling), producer, consumer, axis, scale: summarize(s) }
}
