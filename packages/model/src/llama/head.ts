import type { Graph } from './graph.js'

const EMBEDDING = 'model.embed_tokens.weight'

function embeddingTable({ builder, config }: Graph): string {
  return builder.weight('embed', [config.vocabSize, config.hiddenSize], [EMBEDDING])
}

/** Token ids → `out`, [tokens, hiddenSize]. */
export function embedTokens(graph: Graph, tokens: string, out: string): string {
  graph.builder.op('embed', { tokens, table: embeddingTable(graph), out }, {})
  return out
}

/**
 * The rows `outputRows` of `hidden` → final norm → logits f32 [outputs, vocabSize] in the buffer `logits`. Tied
 * embeddings are one weight, bound once. Never quantized.
 */
export function outputHead(graph: Graph, hidden: string, logits: string): string {
  const { builder, config, plan } = graph
  const { hiddenSize, vocabSize } = config
  const picked = builder.scratch('head.hidden', plan.compute, ['outputs', hiddenSize])
  builder.op('gatherRows', { x: hidden, rows: 'outputRows', out: picked }, {})
  const out = builder.scratch('head.normed', plan.compute, ['outputs', hiddenSize])
  const normed = graph.norm(picked, 'norm', 'model.norm.weight', out)
  const weight = config.tieWordEmbeddings
    ? embeddingTable(graph)
    : builder.weight('head', [vocabSize, hiddenSize], ['lm_head.weight'])
  builder.op('linear', { x: normed, weight, out: logits }, {})
  return logits
}

/** One token per output row, drawn as its `temperature`, `topK`, `topP` and `uniform` inputs say, to the output `token`. */
export function sampleTokens({ builder }: Graph, logits: string): void {
  const setting = (name: string): string => builder.input(name, name === 'topK' ? 'i32' : 'f32', ['outputs'])
  const operands = {
    logits,
    temperature: setting('temperature'),
    topK: setting('topK'),
    topP: setting('topP'),
    uniform: setting('uniform'),
  }
  builder.op('sample', { ...operands, token: builder.output('token', 'i32', ['outputs']) }, {})
}
