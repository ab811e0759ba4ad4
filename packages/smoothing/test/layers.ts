import type { KeyStatistics, LayerGeometry, LayerWeights, Matrix } from '../src/index.js'
import { forward, keyStatistics, relativeError } from './block.js'

export const geometries: Record<string, LayerGeometry> = {
  'multi-head, head_dim 64': geometry(2, 2, 64),
  'grouped-query 4:1, head_dim 64': geometry(4, 1, 64),
  'grouped-query 4:2, head_dim 128': geometry(4, 2, 128),
  'grouped-query 8:2, head_dim 8': geometry(8, 2, 8),
}

export function geometry(numAttentionHeads: number, numKeyValueHeads: number, headDim: number): LayerGeometry {
  return { hiddenSize: 24, numAttentionHeads, numKeyValueHeads, headDim, intermediateSize: 40 }
}

/** Normal weights with outlier input channels, outlier key channels, and, if asked for, biases. */
export function randomLayer(g: LayerGeometry, seed = 1, biases = false): LayerWeights {
  const normal = normals(seed)
  const [queries, keys] = [g.numAttentionHeads * g.headDim, g.numKeyValueHeads * g.headDim]
  const vector = (length: number, mean = 0) => Float32Array.from({ length }, () => mean + 0.3 * normal())
  const columnScale = (c: number) => (c % 11 === 3 ? 12 : 1)
  const matrix = (rows: number, columns: number): Matrix => ({
    rows,
    columns,
    data: Float32Array.from(
      { length: rows * columns },
      (_, i) => (normal() / Math.sqrt(columns)) * columnScale(i % columns),
    ),
  })
  const k = matrix(keys, g.hiddenSize)
  for (let r = 0; r < keys; r++) {
    if (r % g.headDim === 5) for (let c = 0; c < k.columns; c++) k.data[r * k.columns + c] *= 15
  }
  return {
    inputNorm: vector(g.hiddenSize, 1),
    q: matrix(queries, g.hiddenSize),
    k,
    v: matrix(keys, g.hiddenSize),
    o: matrix(g.hiddenSize, queries),
    postAttentionNorm: vector(g.hiddenSize, 1),
    gate: matrix(g.intermediateSize, g.hiddenSize),
    up: matrix(g.intermediateSize, g.hiddenSize),
    down: matrix(g.hiddenSize, g.intermediateSize),
    ...(biases && {
      qBias: vector(queries),
      kBias: vector(keys),
      vBias: vector(keys),
      oBias: vector(g.hiddenSize),
      gateBias: vector(g.intermediateSize),
      upBias: vector(g.intermediateSize),
      downBias: vector(g.hiddenSize),
    }),
  }
}

export function randomTokens(g: LayerGeometry, seed = 2, tokens = 4): number[][] {
  const normal = normals(seed)
  return Array.from({ length: tokens }, () => Array.from({ length: g.hiddenSize }, normal))
}

/** Statistics of the layer's keys on the tokens. */
export function measure(layer: LayerWeights, g: LayerGeometry, x: number[][], keyScale?: Float32Array): KeyStatistics {
  return keyStatistics(forward(x, layer, g, keyScale), g)
}

/** The relative difference between the outputs of two layers on the tokens, the larger of attention's and the MLP's. */
export function difference(
  before: LayerWeights,
  after: { weights: LayerWeights; keyScale?: Float32Array },
  g: LayerGeometry,
  x: number[][],
): number {
  const [a, b] = [forward(x, before, g), forward(x, after.weights, g, after.keyScale)]
  return Math.max(relativeError(a.attention, b.attention), relativeError(a.mlp, b.mlp))
}

export function matrixOf(rows: number[][]): Matrix {
  return { rows: rows.length, columns: rows[0].length, data: Float32Array.from(rows.flat()) }
}

// mulberry32 and Box-Muller
function normals(seed: number): () => number {
  let state = seed
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())
}
