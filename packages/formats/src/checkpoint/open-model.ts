import { join } from 'node:path'
import { modelTensors, parseModelConfig } from '../config/families.js'
import { readJsonFile } from '../config/json.js'
import type { LlamaConfig } from '../config/llama-config.js'
import { readTensor } from '../safetensors/read-tensor.js'
import { exists, openShardedSafetensors } from '../safetensors/sharded.js'
import type { TensorStore } from '../safetensors/store.js'
import type { FloatDType, Tensor } from '../tensor.js'
import { CheckpointError } from './error.js'
import { type FireqMetadata, METADATA_FILE, readFireqMetadata, type WeightFormat } from './metadata.js'
import { parseQuantizationConfig, type QuantizationConfig } from './quantization-config.js'
import { readInt4 } from './read-int4.js'
import { findTensors, int4Names, type StoredTensor } from './stored-tensors.js'

/** The config of a model and its tensors, read one by one. Names are Hugging Face's (`model.norm.weight`). */
export interface ModelSource extends AsyncDisposable {
  readonly dir: string
  readonly config: LlamaConfig
  /** `config.json` as it is. */
  readonly rawConfig: Readonly<Record<string, unknown>>
  /** Of a quantized model; made up from `config.json` where another tool wrote it. */
  readonly quantization?: FireqMetadata
  /** Every tensor of the model; a tied one has no `lm_head.weight`. */
  names(): string[]
  has(name: string): boolean
  /** [N, K] for a matrix, also where it is stored as INT4. */
  shape(name: string): readonly number[]
  /** `i4g` for INT4. */
  dtype(name: string): FloatDType | 'i4g'
  /** A tensor as it is stored, or its rows [start, end) along the first axis. */
  tensor(name: string, options?: { readonly rows?: readonly [number, number] }): Promise<Tensor>
  /** Closes the files. Closing twice is fine. */
  close(): Promise<void>
}

/**
 * Opens a model directory: Hugging Face's (`config.json` and safetensors), or a quantized one in the compressed-tensors
 * format, ours or another tool's. Every tensor is checked against the config now; none is read yet.
 * @throws ConfigError, CheckpointError or SafetensorsError, naming the file and the field or tensor
 */
export async function openModel(dir: string): Promise<ModelSource> {
  const configPath = join(dir, 'config.json')
  if (!(await exists(configPath))) {
    throw new CheckpointError(dir, 'Expected a model directory but received one without config.json, or none')
  }
  const rawConfig = await readJsonFile(configPath)
  const config = parseModelConfig(rawConfig, configPath)
  const raw = rawConfig as Readonly<Record<string, unknown>>
  const compression = parseQuantizationConfig(raw.quantization_config, configPath)
  const metadataPath = join(dir, METADATA_FILE)
  const metadata = (await exists(metadataPath)) ? await readFireqMetadata(metadataPath) : undefined
  const store = await openShardedSafetensors(dir)
  try {
    const tensors = await findTensors(
      store,
      modelTensors(config).flatMap((group) => group.tensors),
    )
    checkCompression(store, configPath, tensors, compression)
    if (metadata) checkMetadata(metadataPath, metadata, config, compression, tensors, store)
    const quantization = metadata ?? (compression && impliedMetadata(compression, tensors))
    return new StoredModel(dir, config, raw, quantization, store, tensors)
  } catch (error) {
    await store.close()
    throw error
  }
}

class StoredModel implements ModelSource {
  readonly #store: TensorStore
  readonly #tensors: ReadonlyMap<string, StoredTensor>

  constructor(
    readonly dir: string,
    readonly config: LlamaConfig,
    readonly rawConfig: Readonly<Record<string, unknown>>,
    readonly quantization: FireqMetadata | undefined,
    store: TensorStore,
    tensors: ReadonlyMap<string, StoredTensor>,
  ) {
    this.#store = store
    this.#tensors = tensors
  }

  names(): string[] {
    return [...this.#tensors.keys()]
  }

  has(name: string): boolean {
    return this.#tensors.has(name)
  }

  shape(name: string): readonly number[] {
    return this.#stored(name).shape
  }

  dtype(name: string): FloatDType | 'i4g' {
    return this.#stored(name).dtype
  }

  async tensor(name: string, { rows }: { readonly rows?: readonly [number, number] } = {}): Promise<Tensor> {
    const stored = this.#stored(name)
    if (rows) this.#checkRows(name, stored.shape[0], rows)
    if (stored.dtype !== 'i4g') return readTensor(this.#store, name, { rows })
    const format = this.quantization!.weights[name]
    return readInt4(this.#store, name, stored, format, rows)
  }

  async close(): Promise<void> {
    await this.#store.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #stored(name: string): StoredTensor {
    const stored = this.#tensors.get(name)
    if (!stored) throw new CheckpointError(this.dir, `Expected a tensor of the model but received "${name}"`)
    return stored
  }

  #checkRows(name: string, count: number, [start, end]: readonly [number, number]): void {
    if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start >= end || end > count) {
      const problem = `Expected at least one row within 0…${count} of tensor "${name}" but received ${start}…${end}`
      throw new CheckpointError(this.dir, problem)
    }
  }
}

/** The packed weights are those that `quantization_config` describes. */
function checkCompression(
  store: TensorStore,
  configPath: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  compression: QuantizationConfig | undefined,
): void {
  for (const [name, tensor] of tensors) {
    if (tensor.dtype !== 'i4g') continue
    const { packed, scale } = int4Names(name)
    if (!compression) {
      throw new CheckpointError(configPath, `Expected a quantization_config for tensor "${packed}" but received none`)
    }
    if (!compression.groupSizes.includes(tensor.groupSize)) {
      const expected = `groups of ${compression.groupSizes.join(' or ')}, as config.json says,`
      const problem = `Expected ${expected} for tensor "${scale}" but received ${tensor.groupSize}`
      throw new CheckpointError(store.fileOf(scale), problem)
    }
  }
}

/** `fireq.json` is about these tensors, and says nothing else than `config.json`. */
function checkMetadata(
  path: string,
  { weights, activations, keyScale }: FireqMetadata,
  config: LlamaConfig,
  compression: QuantizationConfig | undefined,
  tensors: ReadonlyMap<string, StoredTensor>,
  store: TensorStore,
): void {
  const fail = (problem: string): never => {
    throw new CheckpointError(path, problem)
  }
  for (const [name, tensor] of tensors) {
    if (tensor.dtype !== 'i4g') continue
    if (!Object.hasOwn(weights, name)) fail(`Expected an entry of weights for tensor "${name}" but received none`)
    if (tensor.scaleDType !== 'bf16') {
      const { scale } = int4Names(name)
      const problem = `Expected the dtype bf16 for tensor "${scale}" but received ${tensor.scaleDType}`
      throw new CheckpointError(store.fileOf(scale), problem)
    }
  }
  const surplus = Object.keys(weights).find((name) => tensors.get(name)?.dtype !== 'i4g')
  if (surplus !== undefined) fail(`Expected only INT4 tensors of the model in weights but received "${surplus}"`)
  if (compression && compression.activations !== activations) {
    fail(`Expected ${compression.activations} for activations, as config.json says, but received ${activations}`)
  }
  if (!keyScale) return
  const [layers, channels] = [config.numHiddenLayers, config.numKeyValueHeads * config.headDim]
  if (keyScale.length !== layers) fail(`Expected ${layers} layers of keyScale but received ${keyScale.length}`)
  const layer = keyScale.findIndex((scales) => scales.length !== channels)
  if (layer >= 0) fail(`Expected ${channels} numbers in keyScale.${layer} but received ${keyScale[layer].length}`)
}

/** What another tool's checkpoint says without a `fireq.json`. */
function impliedMetadata(
  { activations }: QuantizationConfig,
  tensors: ReadonlyMap<string, StoredTensor>,
): FireqMetadata {
  const weights: Record<string, WeightFormat> = {}
  for (const [name, tensor] of tensors) {
    if (tensor.dtype === 'i4g') weights[name] = { scale: tensor.scaleDType === 'bf16' ? 'bf16' : 'f32' }
  }
  return { formatVersion: 1, activations, queries: 'none', probabilities: 'f32', kv: { dtype: 'bf16' }, weights }
}
