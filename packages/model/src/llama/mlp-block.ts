import type { Graph } from './graph.js'
import type { LayerLinears } from './linears.js'

/** norm → gate and up → SiLU · → down → residual, written to the buffer `out`, [tokens, hiddenSize]. */
export function mlpBlock(
  graph: Graph,
  layer: number,
  { gateUp, down }: Pick<LayerLinears, 'gateUp' | 'down'>,
  hidden: string,
  out: string,
): string {
  const { hiddenSize } = graph.config
  const intermediateSize = down.shape[1]
  const name = (part: string): string => `layers.${layer}.mlp.${part}`

  const tensor = `model.layers.${layer}.post_attention_layernorm.weight`
  const normed = graph.norm(hidden, `layers.${layer}.postNorm`, tensor, graph.activation(name('normed'), hiddenSize))
  graph.tap(layer, 'gateUpInput', normed, hiddenSize)
  const projected = graph.linear(gateUp, normed, graph.activation(name('gateUp'), gateUp.shape[0]))
  const activated = graph.activation(name('activated'), intermediateSize)
  graph.builder.op('siluMul', { gateUp: projected, out: activated }, {})
  graph.tap(layer, 'downInput', activated, intermediateSize)
  const projectedBack = graph.linear(down, activated, graph.activation(name('output'), hiddenSize))
  graph.tap(layer, 'mlpOutput', projectedBack, hiddenSize)
  return graph.add(hidden, projectedBack, out)
}
