import { type LlamaConfig, llamaTensors, type Tensor } from '@fireq/formats'

/** A Llama small enough for the reference backend: three layers, grouped-query attention. */
export const tinyConfig: LlamaConfig = {
  modelType: 'llama',
  hiddenSize: 24,
  intermediateSize: 40,
  numHiddenLayers: 3,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 8,
  vocabSize: 50,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  rope: { theta: 10_000 },
  tieWordEmbeddings: true,
  attentionBias: true,
  mlpBias: false,
  eosTokenIds: [],
}

/** Its weights by name, from a fixed formula; `change` may replace some. */
export function tinyWeights(change: (name: string, tensor: Tensor) => Tensor = (_, tensor) => tensor): {
  asked: string[]
  tensor: (name: string) => Promise<Tensor>
} {
  const asked: string[] = []
  const shapes = new Map(llamaTensors(tinyConfig).flatMap(({ tensors }) => tensors.map((t) => [t.name, t.shape])))
  const tensor = async (name: string): Promise<Tensor> => {
    asked.push(name)
    const shape = shapes.get(name)!
    const size = shape.reduce((a, b) => a * b, 1)
    const phase = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7)
    const data = Float32Array.from({ length: size }, (_, i) => Math.sin(phase + i * 1.7 + (i % 13) * phase))
    return change(name, {
      kind: 'dense',
      dtype: 'f32',
      shape,
      data: data.map((v) => v * 0.3 + (shape.length === 1 ? 1 : 0)),
    })
  }
  return { asked, tensor }
}
