import { type LlamaConfig, type ModelSource, openModel } from '@fireq/formats'
import type { Backend, Executable, Feeds, KvCache, LoadOptions, Results, WeightSet } from '@fireq/kernels'
import { ModelError } from './errors.js'
import { type ModelFamily, modelFamily } from './families.js'
import { generateTokens } from './generation/generate.js'
import type { FinishReason, GenerateOptions } from './generation/options.js'
import { KvPool, type KvSequence } from './kv/pool.js'
import { assembleStep, type StepEntry } from './kv/step.js'
import { type LlamaPlan, planFor } from './llama/plan.js'
import { type LogitsChunk, type LogitsOptions, streamLogits } from './logits.js'
import type { SampleEntry, StepOptions, SteppingModel } from './stepping.js'
import { loadWeights, type TensorSource } from './weights/load.js'

/** What of a checkpoint a model is loaded from. `ModelSource` has it all; a test may bring its own. */
export type LoadSource = TensorSource & Pick<ModelSource, 'config' | 'quantization'>

export interface LoadModelOptions extends LoadOptions {
  /** Overrides of the checkpoint's own plan (see `planFor`). */
  readonly plan?: Partial<LlamaPlan>
  /** Tokens of all sequences together that the KV cache holds; default: the context length, 4096 at the most. */
  readonly kvTokens?: number
  /** Tokens in a page of the KV cache; default 64. */
  readonly pageSize?: number
  /** Longest piece of a prompt in one step: bounds memory, and the time until an abort is heard. Default 512. */
  readonly chunkTokens?: number
}

/** A model loaded on a backend: steps of a batch, and on top of them log-probabilities and generation. */
export class LanguageModel implements SteppingModel, Disposable {
  readonly config: LlamaConfig
  readonly plan: LlamaPlan
  readonly backend: Backend
  readonly pool: KvPool
  readonly chunkTokens: number
  /** Bytes of packed weights. */
  readonly weightBytes: number
  readonly #family: ModelFamily
  readonly #weights: WeightSet
  readonly #kv: KvCache
  readonly #executables: Map<'logits' | 'sample', Promise<Executable>> = new Map()
  readonly #busy: Set<KvSequence> = new Set()
  #disposed = false

  /**
   * Loads a model directory, or an opened checkpoint (which stays open). The backend stays the caller's.
   * @throws ModelError, or formats' error, naming what in the checkpoint doesn't fit
   */
  static async load(
    dirOrSource: string | LoadSource,
    backend: Backend,
    options: LoadModelOptions = {},
  ): Promise<LanguageModel> {
    if (typeof dirOrSource !== 'string') return await LanguageModel.#load(dirOrSource, backend, options)
    const source = await openModel(dirOrSource)
    try {
      return await LanguageModel.#load(source, backend, options)
    } finally {
      await source.close()
    }
  }

  static async #load(source: LoadSource, backend: Backend, options: LoadModelOptions): Promise<LanguageModel> {
    const { config } = source
    const family = modelFamily(config.modelType)
    const plan = planFor(source, family.layerLinears, options.plan)
    const { pageSize = 64, kvTokens = Math.min(config.maxPositionEmbeddings, 4096), chunkTokens = 512 } = options
    checkSizes({ pageSize, kvTokens, chunkTokens })
    const pool = new KvPool(Math.ceil(kvTokens / pageSize), pageSize)
    const program = family.build(config, plan)
    const weights = await loadWeights([program], source, backend, options)
    try {
      const kv = backend.createKvCache(program.kv!, { pages: pool.pages, pageSize })
      return new LanguageModel(config, plan, backend, { family, pool, weights, kv, chunkTokens })
    } catch (error) {
      weights.dispose()
      throw error
    }
  }

  private constructor(
    config: LlamaConfig,
    plan: LlamaPlan,
    backend: Backend,
    parts: { family: ModelFamily; pool: KvPool; weights: WeightSet; kv: KvCache; chunkTokens: number },
  ) {
    this.config = config
    this.plan = plan
    this.backend = backend
    this.pool = parts.pool
    this.chunkTokens = parts.chunkTokens
    this.weightBytes = parts.weights.bytes
    this.#family = parts.family
    this.#weights = parts.weights
    this.#kv = parts.kv
  }

  get contextLength(): number {
    return Math.min(this.config.maxPositionEmbeddings, this.pool.capacity)
  }

  /** Bytes of the KV cache. */
  get kvBytes(): number {
    return this.#kv.bytes
  }

  async forward(entries: readonly StepEntry[], options: StepOptions = {}): Promise<Float32Array[]> {
    const { results, outputEnds } = await this.#step('logits', entries, () => ({}), options.signal)
    const { vocabSize } = this.config
    const logits = results.logits as Float32Array
    return outputEnds.map((end, i) => logits.subarray((outputEnds[i - 1] ?? 0) * vocabSize, end * vocabSize))
  }

  async sample(entries: readonly SampleEntry[], options: StepOptions = {}): Promise<Int32Array[]> {
    const settings = (outputEnds: readonly number[]): Feeds => {
      const perRow = entries.flatMap(({ sampling }, i) =>
        new Array<SampleEntry['sampling']>(outputEnds[i]! - (outputEnds[i - 1] ?? 0)).fill(sampling),
      )
      return {
        temperature: Float32Array.from(perRow, (s) => s.temperature),
        topK: Int32Array.from(perRow, (s) => s.topK),
        topP: Float32Array.from(perRow, (s) => s.topP),
        uniform: Float32Array.from(perRow, (s) => s.uniform),
      }
    }
    const { results, outputEnds } = await this.#step('sample', entries, settings, options.signal)
    const token = results.token as Int32Array
    return outputEnds.map((end, i) => token.subarray(outputEnds[i - 1] ?? 0, end))
  }

  /** Logits after some tokens of a text, as they are computed; see `streamLogits`. */
  streamLogits(ids: ArrayLike<number>, options: LogitsOptions = {}): AsyncGenerator<LogitsChunk, void, void> {
    return streamLogits(this, ids, options)
  }

  /** Logits [rows · vocabSize] after the tokens `rows` of a text (all of them if left out), in one array. */
  async logits(ids: ArrayLike<number>, options: LogitsOptions = {}): Promise<Float32Array> {
    const { vocabSize } = this.config
    const out = new Float32Array((options.rows?.length ?? ids.length) * vocabSize)
    let at = 0
    for await (const { logits } of this.streamLogits(ids, options)) {
      out.set(logits, at)
      at += logits.length
    }
    return out
  }

  /** Continues a prompt token by token; returns why it ended. Leaving the loop, or an abort, frees the sequence. */
  generate(prompt: ArrayLike<number>, options: GenerateOptions = {}): AsyncGenerator<number, FinishReason, void> {
    return generateTokens(this, prompt, options)
  }

  /** Frees weights and KV cache. Safe to call twice; every later step is an error. */
  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const executable of this.#executables.values()) {
      executable.then(
        (ready) => ready.dispose(),
        () => undefined, // its compile error went to whoever asked for it
      )
    }
    this.#kv.dispose()
    this.#weights.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  async #step(
    to: 'logits' | 'sample',
    entries: readonly StepEntry[],
    settings: (outputEnds: readonly number[]) => Feeds,
    signal: AbortSignal | undefined,
  ): Promise<{ results: Results; outputEnds: readonly number[] }> {
    if (this.#disposed) throw new ModelError('Expected a loaded model but it was disposed')
    signal?.throwIfAborted()
    this.#checkEntries(entries)
    const { feeds, outputEnds, rollBack } = assembleStep(this.pool, entries)
    for (const { sequence } of entries) this.#busy.add(sequence)
    try {
      const executable = await this.#executable(to)
      const results = await executable.run({ ...feeds, ...settings(outputEnds) }, { kv: this.#kv, signal })
      signal?.throwIfAborted() // the backend may have been quicker than the abort
      return { results, outputEnds }
    } catch (error) {
      rollBack()
      throw error
    } finally {
      for (const { sequence } of entries) this.#busy.delete(sequence)
    }
  }

  #executable(to: 'logits' | 'sample'): Promise<Executable> {
    let executable = this.#executables.get(to)
    if (executable === undefined) {
      executable = this.backend.compile(this.#family.build(this.config, this.plan, { to }), this.#weights)
      this.#executables.set(to, executable)
    }
    return executable
  }

  #checkEntries(entries: readonly StepEntry[]): void {
    const { maxPositionEmbeddings, vocabSize } = this.config
    entries.forEach(({ sequence, tokens }, i) => {
      if (this.#busy.has(sequence)) throw new ModelError(`Expected an idle sequence ${i} but a step of it is running`)
      const length = sequence.length + tokens.length
      if (length > maxPositionEmbeddings) {
        throw new ModelError(
          `Expected at most ${maxPositionEmbeddings} tokens (the model's context) for sequence ${i} but received ${length}`,
        )
      }
      for (let t = 0; t < tokens.length; t++) {
        if (!(tokens[t]! < vocabSize)) {
          throw new ModelError(`Expected token ids below ${vocabSize} but token ${t} of sequence ${i} is ${tokens[t]}`)
        }
      }
    })
  }
}

function checkSizes(sizes: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new ModelError(`Expected a whole number ≥ 1 for ${name} but received ${value}`)
    }
  }
}
