import type { Graph } from './graph.js'
import type { LayerLinears } from './linears.js'

/** Where a layer stands: its number in the model, which names it, and its place in the program's KV cache. */
interface LayerPlace {
  readonly layer: number
  readonly kvLayer: number
}

/** norm → qkv → RoPE → key scale → KV cache → attention → o → residual. Returns the buffer `out`, [tokens, hiddenSize]. */
export function attentionBlock(
  graph: Graph,
  { layer, kvLayer }: LayerPlace,
  { qkv, o }: Pick<LayerLinears, 'qkv' | 'o'>,
  hidden: string,
): string {
  const { builder, config, plan } = graph
  const { hiddenSize, headDim, numAttentionHeads } = config
  const name = (part: string): string => `layers.${layer}.attention.${part}`

  const tensor = `model.layers.${layer}.input_layernorm.weight`
  const normed = graph.norm(hidden, `layers.${layer}.inputNorm`, tensor, graph.activation(name('normed'), hiddenSize))
  graph.tap(layer, 'qkvInput', normed, hiddenSize)
  const projected = graph.linear(qkv, normed, graph.activation(name('qkv'), qkv.shape[0]))
  const { q, k, v } = rotate(graph, layer, projected)
  builder.op('storeKv', { k, v, slots: 'slots' }, { layer: kvLayer })

  const querySize = numAttentionHeads * headDim
  const attended = graph.activation(name('attended'), querySize)
  const query = plan.queries === 'e4m3' ? graph.quantize(q, name('q'), querySize, headDim) : undefined
  builder.op(
    'attention',
    {
      q: query?.values ?? q,
      ...(query && { qScale: query.scale }),
      queryEnds: 'queryEnds',
      contextLengths: 'contextLengths',
      pageTable: 'pageTable',
      out: attended,
    },
    {
      layer: kvLayer,
      numAttentionHeads,
      softmaxScale: 1 / Math.sqrt(headDim),
      probabilities: plan.probabilities,
    },
  )
  graph.tap(layer, 'oInput', attended, querySize)
  const projectedBack = graph.linear(o, attended, graph.activation(name('output'), hiddenSize))
  graph.tap(layer, 'attentionOutput', projectedBack, hiddenSize)
  return graph.add(hidden, projectedBack, graph.activation(name('hidden'), hiddenSize))
}

/** Queries, keys and values as they meet the cache: rotated, and keys times the plan's key scale. */
function rotate(graph: Graph, layer: number, qkv: string): { q: string; k: string; v: string } {
  const { builder, config, plan } = graph
  const { headDim, numAttentionHeads, numKeyValueHeads } = config
  const [querySize, keySize] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]
  const activation = (part: string, columns: number): string =>
    graph.activation(`layers.${layer}.attention.${part}`, columns)

  const q = activation('q', querySize)
  const k = activation('k', keySize)
  const v = activation('v', keySize)
  const operands = { qkv, positions: 'positions', inverseFrequencies: 'inverseFrequencies', q, k, v }
  builder.op('rope', operands, { numAttentionHeads, numKeyValueHeads, headDim })
  graph.tap(layer, 'queries', q, querySize)
  graph.tap(layer, 'keys', k, keySize)
  graph.tap(layer, 'values', v, keySize)

  const scales = plan.keyScale?.[layer]
  const scaled =
    scales === undefined || scales.every((scale) => scale === 1)
      ? { q, k, v }
      : { q: activation('scaledQ', querySize), k: activation('scaledK', keySize), v }
  if (scales !== undefined && scaled.k !== k) {
    const keyScale = builder.constant(`layers.${layer}.keyScale`, scales)
    builder.op('scaleKeys', { q, k, keyScale, qOut: scaled.q, kOut: scaled.k }, { headDim })
  }
  graph.tap(layer, 'scaledKeys', scaled.k, keySize)
  return scaled
}
