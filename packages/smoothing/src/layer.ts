/** A weight matrix [rows, columns], row-major: rows are output features, columns input features. */
export interface Matrix {
  readonly rows: number
  readonly columns: number
  readonly data: Float32Array
}

/** The sizes of a Llama layer. Query heads of one key-value head are adjacent. */
export interface LayerGeometry {
  readonly hiddenSize: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly intermediateSize: number
}

/** The weights of one Llama layer, unquantized. H query heads, Hkv key-value heads, D = headDim. */
export interface LayerWeights {
  /** [hiddenSize] */
  readonly inputNorm: Float32Array
  /** [H·D, hiddenSize] */
  readonly q: Matrix
  /** [Hkv·D, hiddenSize] */
  readonly k: Matrix
  /** [Hkv·D, hiddenSize] */
  readonly v: Matrix
  /** [hiddenSize, H·D] */
  readonly o: Matrix
  /** [hiddenSize] */
  readonly postAttentionNorm: Float32Array
  /** [intermediateSize, hiddenSize] */
  readonly gate: Matrix
  /** [intermediateSize, hiddenSize] */
  readonly up: Matrix
  /** [hiddenSize, intermediateSize] */
  readonly down: Matrix
  /** Biases, one value per row of their matrix, where the model has them. */
  readonly qBias?: Float32Array
  readonly kBias?: Float32Array
  readonly vBias?: Float32Array
  readonly oBias?: Float32Array
  readonly gateBias?: Float32Array
  readonly upBias?: Float32Array
  readonly downBias?: Float32Array
}

/** The key channel g·D + d of every query channel h·D + d: query head h reads key-value head g = ⌊h / (H/Hkv)⌋. */
export function keyChannels({ numAttentionHeads, numKeyValueHeads, headDim }: LayerGeometry): Int32Array {
  const headsPerGroup = numAttentionHeads / numKeyValueHeads
  return Int32Array.from({ length: numAttentionHeads * headDim }, (_, channel) => {
    const head = Math.floor(channel / headDim)
    return Math.floor(head / headsPerGroup) * headDim + (channel % headDim)
  })
}
