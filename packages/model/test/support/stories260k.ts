import { readFileSync } from 'node:fs'
import type { LlamaConfig, Tensor } from '@fireq/formats'
import type { LoadSource } from '../../src/index.js'
import { dense, memorySource } from './memory-source.js'

/** A model in llama2.c's version 0 format, its query and key rows brought from interleaved to half-split RoPE pairs. */
export function stories260k(path: string): LoadSource {
  const file = readFileSync(path)
  const [dim, hidden, layers, heads, kvHeads, vocab, context] = Array.from({ length: 7 }, (_, i) =>
    file.readInt32LE(4 * i),
  ) as [number, number, number, number, number, number, number]
  const headDim = dim / heads
  const config: LlamaConfig = {
    modelType: 'llama',
    hiddenSize: dim,
    intermediateSize: hidden,
    numHiddenLayers: layers,
    numAttentionHeads: heads,
    numKeyValueHeads: kvHeads,
    headDim,
    vocabSize: vocab,
    maxPositionEmbeddings: context,
    rmsNormEps: 1e-5,
    rope: { theta: 10000 },
    tieWordEmbeddings: true,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 1,
    eosTokenIds: [2],
  }
  const values = new Float32Array(new Uint8Array(file.subarray(28)).buffer)
  const tensors = new Map<string, Tensor>()
  let at = 0
  const take = (name: string, shape: number[], change = (v: Float32Array) => v): void => {
    const count = shape.reduce((product, n) => product * n, 1)
    tensors.set(name, dense(shape, change(values.slice(at, at + count))))
    at += count
  }
  const perLayer = (name: string, shape: number[], change?: (v: Float32Array) => Float32Array): void => {
    for (let i = 0; i < layers; i++) take(`model.layers.${i}.${name}.weight`, shape, change)
  }
  const kvDim = kvHeads * headDim
  take('model.embed_tokens.weight', [vocab, dim])
  perLayer('input_layernorm', [dim])
  perLayer('self_attn.q_proj', [dim, dim], (rows) => halfSplit(rows, headDim, dim))
  perLayer('self_attn.k_proj', [kvDim, dim], (rows) => halfSplit(rows, headDim, dim))
  perLayer('self_attn.v_proj', [kvDim, dim])
  perLayer('self_attn.o_proj', [dim, dim])
  perLayer('post_attention_layernorm', [dim])
  perLayer('mlp.gate_proj', [hidden, dim])
  perLayer('mlp.down_proj', [dim, hidden])
  perLayer('mlp.up_proj', [hidden, dim])
  take('model.norm.weight', [dim])
  return memorySource(config, tensors)
}

/** Rows (2i, 2i + 1) of every head, which rotate together in Meta's order, become (i, i + headDim / 2). */
function halfSplit(rows: Float32Array, headDim: number, columns: number): Float32Array {
  const out = new Float32Array(rows.length)
  for (let row = 0; row < rows.length / columns; row++) {
    const within = row % headDim
    const to = row - within + (within >> 1) + (within % 2) * (headDim / 2)
    out.set(rows.subarray(row * columns, (row + 1) * columns), to * columns)
  }
  return out
}

/** The bytes of each id in a llama2.c tokenizer file. */
export function storiesPieces(path: string): Buffer[] {
  const file = readFileSync(path)
  const pieces: Buffer[] = []
  for (let at = 4; at < file.length; ) {
    const length = file.readInt32LE(at + 4)
    const piece = file.subarray(at + 8, at + 8 + length)
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece.toString())
    pieces.push(byte ? Buffer.from([Number.parseInt(byte[1]!, 16)]) : piece)
    at += 8 + length
  }
  return pieces
}
