import type { ScoredModel } from '@fireq/model'

/** The same model, telling how many rows of logits it has given so far: progress within a window. */
export function watchTokens(model: ScoredModel, onTokens: (done: number) => void): ScoredModel {
  let done = 0
  return {
    config: model.config,
    async *streamLogits(ids, options) {
      for await (const chunk of model.streamLogits(ids, options)) {
        done += chunk.rows.length
        onTokens(done)
        yield chunk
      }
    },
  }
}
