/** Rotary position embedding: the base, and how frequencies are stretched for longer contexts. */
export interface RopeConfig {
  readonly theta: number
  readonly scaling?: RopeScaling
}

export type RopeScaling =
  /** Positions divided by `factor`. */
  | { readonly type: 'linear'; readonly factor: number }
  /** Llama 3.1: low frequencies divided by `factor`, high ones kept, those between interpolated. */
  | {
      readonly type: 'llama3'
      readonly factor: number
      readonly lowFreqFactor: number
      readonly highFreqFactor: number
      readonly originalMaxPositionEmbeddings: number
    }

/** A Llama, with every default filled in. Names are those of Hugging Face's `config.json`. */
export interface LlamaConfig {
  /** The family, a key of the registry in `families.ts`. */
  readonly modelType: string
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numHiddenLayers: number
  readonly numAttentionHeads: number
  /** Divides `numAttentionHeads`. */
  readonly numKeyValueHeads: number
  /** Even; numAttentionHeads · headDim needn't be hiddenSize. */
  readonly headDim: number
  readonly vocabSize: number
  readonly maxPositionEmbeddings: number
  readonly rmsNormEps: number
  readonly rope: RopeConfig
  readonly tieWordEmbeddings: boolean
  /** Biases on q, k, v and o. */
  readonly attentionBias: boolean
  /** Biases on gate, up and down. */
  readonly mlpBias: boolean
  readonly bosTokenId?: number
  readonly eosTokenIds: readonly number[]
}
