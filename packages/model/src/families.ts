import type { LlamaConfig } from '@fireq/formats'
import type { Program } from '@fireq/kernels'
import { ModelError } from './errors.js'
import { type BuildOptions, buildLlama } from './llama/build.js'
import { type LayerLinears, llamaLinears } from './llama/linears.js'
import type { LlamaPlan } from './llama/plan.js'

/** How a kind of model becomes a program. */
export interface ModelFamily {
  build(config: LlamaConfig, plan: LlamaPlan, options?: BuildOptions): Program
  /** The linears of a decoder layer: what quantization works on. */
  layerLinears(config: LlamaConfig, layer: number): LayerLinears
}

/**
 * Every kind of model, by the `model_type` of its config.json. A new one is a file that says how its linears or blocks
 * differ (see `buildDecoder`), and a line here.
 */
const families: Readonly<Record<string, ModelFamily>> = {
  llama: { build: buildLlama, layerLinears: llamaLinears },
}

/** @throws ModelError if there is no such family */
export function modelFamily(modelType: string): ModelFamily {
  if (!Object.hasOwn(families, modelType)) {
    throw new ModelError(`Expected a model type among ${Object.keys(families).join(', ')} but received '${modelType}'`)
  }
  return families[modelType]!
}
