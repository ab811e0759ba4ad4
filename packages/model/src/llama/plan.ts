import type { FireqMetadata, KvFormat, LlamaConfig } from '@fireq/formats'
import { ModelError } from '../errors.js'
import { type LayerLinears, type LinearSpec, linearsOf } from './linears.js'

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
    for (const linear of linearsOf(layerLinears(config, layer))) {
      if (!isQuantized(linear, weights)) unquantizedLinears.push(linear.name)
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

/** Parts of one linear are one matrix: all in INT4 of one kind, or none. */
function isQuantized({ name, parts }: LinearSpec, weights: FireqMetadata['weights']): boolean {
  const kind = (part: string): string => {
    const format = Object.hasOwn(weights, part) ? weights[part]! : undefined
    return format
      ? `INT4 with ${format.scale} scales${format.lookupRounding ? ' and look-up rounding' : ''}`
      : 'not INT4'
  }
  const odd = parts.find((part) => kind(part) !== kind(parts[0]!))
  if (odd !== undefined) {
    throw new ModelError(
      `Expected the parts of ${name} to be alike but '${parts[0]}' is ${kind(parts[0]!)} and '${odd}' is ${kind(odd)}`,
    )
  }
  return Object.hasOwn(weights, parts[0]!)
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
