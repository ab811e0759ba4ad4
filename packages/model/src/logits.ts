import { ModelError } from './errors.js'
import type { SteppingModel } from './stepping.js'

export interface LogitsOptions {
  /** Tokens after which logits are wanted, rising; default: all. Tokens after the last of them aren't computed. */
  readonly rows?: readonly number[]
  /** Longest piece of the text in one step; default: the model's, less where its logits would pass 64 MiB. */
  readonly chunkTokens?: number
  readonly signal?: AbortSignal
}

/** Logits after the tokens `rows` of the text: [rows.length · vocabSize]. */
export interface LogitsChunk {
  readonly rows: readonly number[]
  readonly logits: Float32Array
}

const LOGITS_BYTES = 64 * 2 ** 20

/** Logits of a text, a chunk at a time, so that memory stays bounded whatever the text's length and the vocabulary. */
export async function* streamLogits(
  model: SteppingModel,
  ids: ArrayLike<number>,
  { rows, signal, chunkTokens = defaultChunk(model) }: LogitsOptions,
): AsyncGenerator<LogitsChunk, void, void> {
  checkText(ids, model.contextLength)
  const wanted = rows ?? Array.from(ids, (_, row) => row)
  checkRows(wanted, ids.length)
  const tokens = Int32Array.from(ids)
  const end = wanted.length === 0 ? 0 : wanted.at(-1)! + 1
  const sequence = model.pool.open()
  try {
    let from = 0
    for (let start = 0; start < end; start += chunkTokens) {
      const stop = Math.min(start + chunkTokens, end)
      let to = from
      while (to < wanted.length && wanted[to]! < stop) to++
      const chunk = wanted.slice(from, to)
      const outputs = chunk.map((row) => row - start)
      const [logits] = await model.forward([{ sequence, tokens: tokens.subarray(start, stop), outputs }], { signal })
      if (chunk.length > 0) yield { rows: chunk, logits: logits! }
      from = to
    }
  } finally {
    model.pool.close(sequence)
  }
}

/** @throws ModelError if a prompt or text is empty or too long for the model or its KV cache */
export function checkText(ids: ArrayLike<number>, contextLength: number): void {
  if (ids.length === 0) throw new ModelError('Expected at least one token but received none')
  if (ids.length > contextLength) {
    throw new ModelError(
      `Expected at most ${contextLength} tokens (the model's context, or the KV cache if that is smaller) but received ${ids.length}`,
    )
  }
}

function defaultChunk({ config, chunkTokens }: SteppingModel): number {
  return Math.max(1, Math.min(chunkTokens, Math.floor(LOGITS_BYTES / (4 * config.vocabSize))))
}

function checkRows(rows: readonly number[], length: number): void {
  rows.forEach((row, i) => {
    const least = i === 0 ? 0 : rows[i - 1]! + 1
    if (!Number.isInteger(row) || row < least || row >= length) {
      throw new ModelError(`Expected rising rows below ${length} but row ${i} is ${row}`)
    }
  })
}
