import type { FireqMetadata, KvFormat, LlamaConfig } from '@fireq/formats'
import { ModelError } from '../errors.js'
import type { LayerLinears } from './linears.js'

/** In which types a model runs: what a checkpoint's config doesn't say. */
export interface LlamaPlan {
  /** Type of activations between ops. */
  readonly compute: 'f32' | 'bf16'
  /** Type in which the decoder layers' linears take their input: FP8 with a scale per token, or `compute`. */
  readonly activations: 'e4m3' | 'none'
  /** Type of queries when they meet the cached keys: FP8 with a scale per token and head, or `compute`. */
  readonly queries: 'e4m3' | 'none'
  /** Type of the softmax numerators when they meet the cached values. */
  readonly probabilities: 'e4m3' | 'f32'
  readonly kv: KvFormat
  /** Post-RoPE factors on keys (queries take the inverse), per layer, [numKeyValueHeads · headDim]. */
  readonly keyScale?: readonly Float32Array[]
  /** Linears by program name (`layers.0.down`) that take their input in `compute` though `activations` is `e4m3`. */
  readonly unquantizedLinears?: readonly string[]
}

/**
 * The plan of a checkpoint: what its quantization metadata says, or BF16 throughout if it has none. `overrides` go
 * first; an unquantized model's KV cache has the type of `compute` unless they say otherwise.
 */
export function planFor(
  source: { readonly config: LlamaConfig; readonly quantization?: FireqMetadata },
  layerLinears: (config: LlamaConfig, layer: number) => LayerLinears,
  overrides: Partial<LlamaPlan> = {},
): LlamaPlan {
  const { config, quantization } = source
  const compute = overrides.compute ?? 'bf16'
  const defaults: LlamaPlan = quantization
    ? quantizedPlan(config, quantization, layerLinears, compute)
    : { compute, activations: 'none', queries: 'none', probabilities: 'f32', kv: { dtype: compute } }
  const plan = { ...defaults, ...overrides }
  checkPlan(config, plan)
  return plan
}

function quantizedPlan(
  config: LlamaConfig,
  { activations, queries, probabilities, kv, weights, keyScale }: FireqMetadata,
  layerLinears: (config: LlamaConfig, layer: number) => LayerLinears,
  compute: LlamaPlan['compute'],
): LlamaPlan {
  const unquantizedLinears: string[] = []
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    for (const { name, parts } of Object.values(layerLinears(config, layer)) as LayerLinears['qkv'][]) {
      if (!parts.some((part) => Object.hasOwn(weights, part))) unquantizedLinears.push(name)
    }
  }
  return {
    compute,
    activations,
    queries,
    probabilities,
    kv,
    ...(keyScale && { keyScale: keyScale.map((scales) => Float32Array.from(scales)) }),
    ...(unquantizedLinears.length > 0 && { unquantizedLinears }),
  }
}

/** Throws a ModelError if a plan's key scales don't fit the model. */
export function checkPlan(config: LlamaConfig, { keyScale }: LlamaPlan): void {
  if (keyScale === undefined) return
  if (keyScale.length !== config.numHiddenLayers) {
    throw new ModelError(
      `Expected key scales for ${config.numHiddenLayers} layers but received them for ${keyScale.length}`,
    )
  }
  const size = config.numKeyValueHeads * config.headDim
  keyScale.forEach((scales, layer) => {
    if (scales.length !== size) {
      throw new ModelError(`Expected ${size} key scales for layer ${layer} but received ${scales.length}`)
    }
    const bad = scales.findIndex((v) => !Number.isFinite(v) || v === 0)
    if (bad >= 0) {
      throw new ModelError(
        `Expected a finite key scale other than 0 for channel ${bad} of layer ${layer} but received ${scales[bad]}`,
      )
    }
  })
}
