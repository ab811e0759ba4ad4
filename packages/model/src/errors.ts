/** A model, prompt or setting that can't be run as asked; the message says what was expected and what came. */
export class ModelError extends Error {
  override readonly name: string = 'ModelError'
}

/** The KV pool has no page left for the tokens of a step. Finished or aborted sequences give theirs back. */
export class KvPoolFullError extends ModelError {
  override readonly name = 'KvPoolFullError'
}
