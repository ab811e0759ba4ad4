import { join } from 'node:path'
import { modelTensors, parseModelConfig } from '../config/families.js'
import type { LlamaConfig } from '../config/llama-config.js'
import type { ModelTensor, ModelTensorGroup } from '../config/llama-tensors.js'
import { quoted } from '../safetensors/error.js'
import type { Tensor } from '../tensor.js'
import { CheckpointError } from './error.js'
import type { ShardRecord } from './journal.js'
import type { FireqMetadata } from './metadata.js'
import { writeModelFiles } from './model-files.js'
import { openModel } from './open-model.js'
import { Staging } from './staging.js'
import { writeShardFile } from './write-shard.js'

export interface CheckpointOptions {
  /** The model it is made from: its tokenizer, generation defaults and licence are copied when finishing. */
  readonly sourceDir: string
  /** The source's `config.json` as it is. */
  readonly sourceConfig: Readonly<Record<string, unknown>>
  /** Names the source and the recipe (a hash of both). A killed run is resumed only by the same identity. */
  readonly identity: string
  /** Replace a model that is there, and an unfinished one of another identity. Default false: those are errors. */
  readonly overwrite?: boolean
}

/** Writes a model shard by shard; see {@link createCheckpoint}. */
export interface CheckpointWriter extends AsyncDisposable {
  /** Every shard to be written, in order: `embed`, `layer-0` …, `head`. */
  readonly keys: readonly string[]
  /** The shards that are there, also from a killed run, verified by their SHA-256. */
  completed(): string[]
  /** What was given to {@link writeShard} beside the tensors, also in a killed run. */
  note(key: string): unknown
  /**
   * Writes the tensors of a group, durably, in any order of the groups.
   * @param tensors by Hugging Face name: all of the group (see `modelTensors`) and no other. A head may have an
   * `lm_head.weight` though the source is tied; then the result isn't.
   * @param note anything JSON holds, kept until the model is finished
   * @throws CheckpointError naming the first tensor that is missing, surplus, or can't be stored exactly
   */
  writeShard(key: string, tensors: ReadonlyMap<string, Tensor>, note?: unknown): Promise<void>
  /**
   * Writes everything else, opens the result to check it, and makes it appear as the output directory.
   * @throws CheckpointError where shards are missing
   */
  finish(metadata: Omit<FireqMetadata, 'formatVersion' | 'weights'>): Promise<void>
  /** Stops writing and leaves what is there to be resumed. After `finish` it does nothing. */
  close(): Promise<void>
}

/**
 * Begins to write a model directory in the compressed-tensors format with `fireq.json`, or goes on with one that a killed
 * run has left in `<outDir>.partial`. The result is the same, bit by bit, however often it was resumed.
 * @throws CheckpointError where something is in the way; ConfigError where the source's config isn't supported
 */
export async function createCheckpoint(outDir: string, options: CheckpointOptions): Promise<CheckpointWriter> {
  const { sourceDir, sourceConfig, identity, overwrite = false } = options
  const config = parseModelConfig(sourceConfig, join(sourceDir, 'config.json'))
  const groups = modelTensors(config)
  const digits = (n: number) => String(n).padStart(5, '0')
  const fileOf = (index: number) => `model-${digits(index + 1)}-of-${digits(groups.length)}.safetensors`
  const files = new Map(groups.map(({ key }, index) => [key, fileOf(index)]))
  const staging = await Staging.open(outDir, { sourceDir, identity, overwrite, files })
  return new StagedWriter(staging, options, config, groups, files)
}

class StagedWriter implements CheckpointWriter {
  readonly keys: readonly string[]
  readonly #staging: Staging
  readonly #options: CheckpointOptions
  readonly #config: LlamaConfig
  readonly #groups: ReadonlyMap<string, readonly ModelTensor[]>
  readonly #files: ReadonlyMap<string, string>
  /** Writes follow each other. */
  #last: Promise<unknown> = Promise.resolve()
  #closed = false

  constructor(
    staging: Staging,
    options: CheckpointOptions,
    config: LlamaConfig,
    groups: readonly ModelTensorGroup[],
    files: ReadonlyMap<string, string>,
  ) {
    this.keys = groups.map(({ key }) => key)
    this.#staging = staging
    this.#options = options
    this.#config = config
    this.#groups = new Map(groups.map(({ key, tensors }) => [key, tensors]))
    this.#files = files
  }

  completed(): string[] {
    return this.keys.filter((key) => Object.hasOwn(this.#staging.shards, key))
  }

  note(key: string): unknown {
    return this.#shard(key)?.note
  }

  writeShard(key: string, tensors: ReadonlyMap<string, Tensor>, note?: unknown): Promise<void> {
    return this.#afterLast(async () => {
      const group = this.#groups.get(key)
      if (!group) throw this.#error(`Expected a shard among ${this.keys.join(', ')} but received ${quoted(key)}`)
      if (this.#shard(key)) throw this.#error(`Expected shard "${key}" once but received it again`)
      const path = join(this.#staging.modelDir, this.#files.get(key)!)
      const shard = await writeShardFile(path, this.#untied(group, tensors), tensors)
      await this.#staging.record(key, note === undefined ? shard : { ...shard, note: JSON.parse(JSON.stringify(note)) })
    })
  }

  finish(metadata: Omit<FireqMetadata, 'formatVersion' | 'weights'>): Promise<void> {
    return this.#afterLast(async () => {
      const { sourceDir, sourceConfig } = this.#options
      const missing = this.keys.filter((key) => !this.#shard(key))
      if (missing.length > 0) throw this.#error(`Expected every shard to be written but not ${missing.join(', ')}`)
      const shards = this.keys.map((key) => this.#shard(key)!)
      const tensors = [...this.#groups.values()].flat()
      const { modelDir } = this.#staging
      await writeModelFiles(modelDir, { sourceDir, sourceConfig, tensors, shards, metadata })
      // Nothing appears that this library itself wouldn't open.
      await (await openModel(modelDir)).close()
      await this.#staging.publish()
      this.#closed = true
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    await this.#last
    await this.#staging.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #shard(key: string): ShardRecord | undefined {
    const { shards } = this.#staging
    return Object.hasOwn(shards, key) ? shards[key] : undefined
  }

  /** A head that brings its own matrix isn't tied any more. */
  #untied(group: readonly ModelTensor[], tensors: ReadonlyMap<string, Tensor>): readonly ModelTensor[] {
    const name = 'lm_head.weight'
    const isHead = group === this.#groups.get('head')
    if (!isHead || !this.#config.tieWordEmbeddings || !tensors.has(name)) return group
    return [...group, { name, shape: [this.#config.vocabSize, this.#config.hiddenSize], quantizable: false }]
  }

  #afterLast<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => {
      if (this.#closed) throw this.#error('Expected a writer that is open but it is finished or closed')
      return work()
    })
    this.#last = result.catch(() => {})
    return result
  }

  #error(problem: string): CheckpointError {
    return new CheckpointError(this.#staging.outDir, problem)
  }
}
