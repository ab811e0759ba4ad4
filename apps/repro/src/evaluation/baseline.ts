import type { LogitsChunk, LogitsOptions, ScoredModel } from '@fireq/model'

/** Logits of a baseline are kept up to this size; a larger one runs beside every model that is compared to it. */
const KEPT_BYTES = 512 * 2 ** 20

/** A baseline whose logits on some windows are computed once, if they fit into memory. */
export function keepLogits(model: ScoredModel, windows: readonly Int32Array[]): ScoredModel {
  const tokens = windows.reduce((sum, window) => sum + window.length, 0)
  return tokens * model.config.vocabSize * 4 > KEPT_BYTES ? model : new KeptLogits(model)
}

class KeptLogits implements ScoredModel {
  readonly config: ScoredModel['config']
  readonly #model: ScoredModel
  readonly #chunks: Map<ArrayLike<number>, LogitsChunk[]> = new Map()

  constructor(model: ScoredModel) {
    this.config = model.config
    this.#model = model
  }

  /** Windows are told apart as objects, and always asked for whole. */
  async *streamLogits(ids: ArrayLike<number>, options?: LogitsOptions): AsyncGenerator<LogitsChunk, void, void> {
    const kept = this.#chunks.get(ids)
    if (kept) {
      yield* kept
      return
    }
    const chunks: LogitsChunk[] = []
    for await (const { rows, logits } of this.#model.streamLogits(ids, options)) {
      const chunk = { rows, logits: logits.slice() }
      chunks.push(chunk)
      yield chunk
    }
    this.#chunks.set(ids, chunks)
  }
}
