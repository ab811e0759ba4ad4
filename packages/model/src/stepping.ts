import type { LlamaConfig } from '@fireq/formats'
import type { SamplingOptions } from './generation/options.js'
import type { KvPool } from './kv/pool.js'
import type { StepEntry } from './kv/step.js'

/** A sequence's new tokens and how to draw one after each of its output rows. */
export interface SampleEntry extends StepEntry {
  readonly sampling: Required<SamplingOptions> & {
    /** In [0, 1): the draw. */
    readonly uniform: number
  }
}

export interface StepOptions {
  readonly signal?: AbortSignal
}

/** What scoring and generation need of a model: steps of a batch of sequences. */
export interface SteppingModel {
  readonly config: LlamaConfig
  /** Pages of the KV cache. Sequences for steps come from here; don't close one while its step runs. */
  readonly pool: KvPool
  /** Tokens that a sequence may have: the model's context length, or the whole KV cache if that is smaller. */
  readonly contextLength: number
  /** Longest piece of a prompt in one step. */
  readonly chunkTokens: number
  /**
   * Runs one step; returns each entry's logits, [its output rows · vocabSize]. A step that fails or is aborted leaves the
   * sequences as they were.
   * @throws KvPoolFullError if the cache has no room, ModelError if an entry is wrong
   */
  forward(entries: readonly StepEntry[], options?: StepOptions): Promise<Float32Array[]>
  /** Runs one step; returns a token drawn after each output row of each entry. Fails as `forward` does. */
  sample(entries: readonly SampleEntry[], options?: StepOptions): Promise<Int32Array[]>
}
