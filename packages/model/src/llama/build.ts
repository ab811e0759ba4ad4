import type { LlamaConfig } from '@fireq/formats'
import { type Program, ProgramBuilder } from '@fireq/kernels'
import { ModelError } from '../errors.js'
import { attentionBlock } from './attention-block.js'
import { Graph } from './graph.js'
import { embedTokens, outputHead, sampleTokens } from './head.js'
import { type LayerLinears, llamaLinears } from './linears.js'
import { mlpBlock } from './mlp-block.js'
import { checkPlan, type LlamaPlan } from './plan.js'
import { ropeInverseFrequencies } from './rope-frequencies.js'
import { checkTaps, type TapPoint } from './taps.js'

export interface BuildOptions {
  /** Decoder layers [first, after last); all of them if left out. */
  readonly layers?: readonly [number, number]
  /** Feed token ids (`tokens` i32 [tokens], the default), or hidden states (`hidden` [tokens, hiddenSize]). */
  readonly from?: 'tokens' | 'hidden'
  /**
   * Return `logits` f32 [outputs, vocabSize] (the default), `token` i32 [outputs] drawn from them, or `hiddenOut`
   * [tokens, hiddenSize] after the last layer, before the final norm.
   */
  readonly to?: 'logits' | 'sample' | 'hidden'
  readonly taps?: readonly TapPoint[]
}

/**
 * A Llama, or a span of its layers, as a program.
 *
 * Inputs: `tokens` or `hidden`; if there are layers `positions`, `slots`, `queryEnds`, `contextLengths`, `pageTable`
 * (see `assembleStep`); `outputRows` if there are logits; `temperature`, `topK`, `topP`, `uniform` to sample. The KV
 * cache of a span holds the span's layers only.
 * @throws ModelError if the span, the plan or a tap doesn't fit the model
 */
export function buildLlama(config: LlamaConfig, plan: LlamaPlan, options: BuildOptions = {}): Program {
  return buildDecoder(config, plan, options, llamaLinears)
}

/** A decoder in Llama's shape whose linears, and their biases, are as `layerLinears` says. */
export function buildDecoder(
  config: LlamaConfig,
  plan: LlamaPlan,
  { layers = [0, config.numHiddenLayers], from = 'tokens', to = 'logits', taps = [] }: BuildOptions,
  layerLinears: (config: LlamaConfig, layer: number) => LayerLinears,
): Program {
  const [first, end] = layers
  checkSpan(config, first, end, from, to)
  checkPlan(config, plan)
  checkTaps(taps)
  const { headDim, hiddenSize, numKeyValueHeads } = config
  const kv = end > first ? { numLayers: end - first, numKeyValueHeads, headDim, format: plan.kv } : undefined
  const builder = new ProgramBuilder(`${config.modelType} layers ${first}–${end}, ${from} to ${to}`, kv)
  const graph = new Graph(builder, config, plan, taps)
  const hiddenBuffer = (name: string, last: boolean): string =>
    last && to === 'hidden'
      ? builder.output('hiddenOut', plan.compute, ['tokens', hiddenSize])
      : graph.activation(name, hiddenSize)

  declareInputs(graph, { from, to, hasLayers: end > first })
  let hidden = from === 'tokens' ? embedTokens(graph, 'tokens', hiddenBuffer('embedded', end === first)) : 'hidden'
  for (let layer = first; layer < end; layer++) {
    const linears = layerLinears(config, layer)
    const attended = attentionBlock(graph, { layer, kvLayer: layer - first }, linears, hidden)
    hidden = mlpBlock(graph, layer, linears, attended, hiddenBuffer(`layers.${layer}.mlp.hidden`, layer === end - 1))
  }
  if (to !== 'hidden') {
    const logits = (to === 'logits' ? builder.output : builder.scratch).bind(builder)
    outputHead(graph, hidden, logits('logits', 'f32', ['outputs', config.vocabSize]))
    if (to === 'sample') sampleTokens(graph, 'logits')
  }
  return builder.build()
}

function declareInputs(
  { builder, config, plan }: Graph,
  { from, to, hasLayers }: { from: string; to: string; hasLayers: boolean },
): void {
  if (from === 'tokens') builder.input('tokens', 'i32', ['tokens'])
  else builder.input('hidden', plan.compute, ['tokens', config.hiddenSize])
  if (hasLayers) {
    builder.constant('inverseFrequencies', ropeInverseFrequencies(config))
    builder.input('positions', 'i32', ['tokens'])
    builder.input('slots', 'i32', ['tokens'])
    builder.input('queryEnds', 'i32', ['sequences'])
    builder.input('contextLengths', 'i32', ['sequences'])
    builder.input('pageTable', 'i32', ['sequences', 'pages'])
  }
  if (to !== 'hidden') builder.input('outputRows', 'i32', ['outputs'])
}

function checkSpan(config: LlamaConfig, first: number, end: number, from: string, to: string): void {
  const { numHiddenLayers } = config
  const span = `layers [${first}, ${end})`
  const whole = Number.isInteger(first) && Number.isInteger(end)
  if (!whole || first < 0 || end < first || end > numHiddenLayers) {
    throw new ModelError(`Expected a span within the model's ${numHiddenLayers} layers but received ${span}`)
  }
  if (from === 'tokens' && first !== 0) throw new ModelError(`Expected ${span} to start at 0, since it takes tokens`)
  if (from === 'hidden' && to === 'hidden' && first === end) {
    throw new ModelError(`Expected at least one layer from hidden to hidden but received ${span}`)
  }
  if (to !== 'hidden' && end !== numHiddenLayers) {
    throw new ModelError(`Expected ${span} to end at ${numHiddenLayers}, since it returns ${to}`)
  }
}
