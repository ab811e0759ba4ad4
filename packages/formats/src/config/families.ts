import { mismatch } from './json.js'
import { parseLlamaConfig } from './llama.js'
import type { LlamaConfig } from './llama-config.js'
import { llamaTensors, type ModelTensorGroup } from './llama-tensors.js'

/** What files must know of a model family. */
export interface ModelFamily {
  /** Reads `config.json`, or says what of it isn't supported. */
  parseConfig(json: unknown, where: string): LlamaConfig
  /** Every tensor the config implies. */
  tensors(config: LlamaConfig): ModelTensorGroup[]
}

/**
 * Families by `model_type`. One that is a Llama with other defaults (Mistral, Qwen 2) is one file with its own schema
 * and one line here.
 */
export const MODEL_FAMILIES: Readonly<Record<string, ModelFamily>> = {
  llama: { parseConfig: parseLlamaConfig, tensors: llamaTensors },
}

/**
 * Reads the `config.json` of any supported family.
 * @throws ConfigError naming the file and the first field that is wrong or isn't supported
 */
export function parseModelConfig(json: unknown, where: string): LlamaConfig {
  const modelType = (json as { model_type?: unknown } | null | undefined)?.model_type
  if (typeof modelType !== 'string' || !Object.hasOwn(MODEL_FAMILIES, modelType)) {
    const known = Object.keys(MODEL_FAMILIES).join(', ')
    throw mismatch(`a supported model family (${known})`, 'model_type', where, modelType)
  }
  return MODEL_FAMILIES[modelType].parseConfig(json, where)
}

/** Every tensor that a config of any family implies, in the order of the forward pass. */
export function modelTensors(config: LlamaConfig): ModelTensorGroup[] {
  return MODEL_FAMILIES[config.modelType].tensors(config)
}
