import { type DenseTensor, type LlamaConfig, llamaTensors, type Tensor } from '@fireq/formats'
import { type LoadSource, seededUniform } from '../../src/index.js'

/** A checkpoint made of arrays. */
export function memorySource(config: LlamaConfig, tensors: ReadonlyMap<string, Tensor>): LoadSource {
  const get = (name: string): Tensor => {
    const tensor = tensors.get(name)
    if (tensor === undefined) throw new Error(`no tensor ${name}`)
    return tensor
  }
  return {
    dir: 'memory',
    config,
    has: (name) => tensors.has(name),
    shape: (name) => get(name).shape,
    tensor: async (name) => get(name),
  }
}

export const TINY: LlamaConfig = {
  modelType: 'llama',
  hiddenSize: 32,
  intermediateSize: 48,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 8,
  vocabSize: 40,
  maxPositionEmbeddings: 64,
  rmsNormEps: 1e-5,
  rope: { theta: 10000 },
  tieWordEmbeddings: false,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: 0,
  eosTokenIds: [],
}

/** A checkpoint of the right shapes with FP32 weights that a seed fixes, large enough that tokens matter. */
export function randomSource(overrides: Partial<LlamaConfig> = {}, seed = 1): LoadSource {
  const config = { ...TINY, ...overrides }
  const uniform = seededUniform(seed)
  const tensors = new Map<string, Tensor>()
  for (const { name, shape } of llamaTensors(config).flatMap((group) => group.tensors)) {
    const columns = shape.at(-1)!
    const amplitude = shape.length === 1 ? 0.2 : 3 / Math.sqrt(columns)
    const centre = name.endsWith('norm.weight') ? 1 : 0
    const count = shape.reduce((product, dim) => product * dim, 1)
    tensors.set(
      name,
      dense(
        shape,
        Float32Array.from({ length: count }, () => centre + amplitude * (uniform() - 0.5)),
      ),
    )
  }
  return memorySource(config, tensors)
}

export function dense(shape: readonly number[], data: Float32Array): DenseTensor {
  return { kind: 'dense', dtype: 'f32', shape, data }
}

/** The same checkpoint under another config: other positions, say, on the same weights. */
export function withConfig(source: LoadSource, overrides: Partial<LlamaConfig>): LoadSource {
  return {
    dir: source.dir,
    config: { ...source.config, ...overrides },
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    tensor: (name) => source.tensor(name),
  }
}

export function randomIds(count: number, vocabSize: number, seed: number): Int32Array {
  const uniform = seededUniform(seed)
  return Int32Array.from({ length: count }, () => Math.floor(uniform() * vocabSize))
}
