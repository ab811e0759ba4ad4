import { ModelError } from '../errors.js'

/** How a token is drawn from its logits (the `sample` op says exactly how). */
export interface SamplingOptions {
  /** 0 (the default) takes the likeliest token. */
  readonly temperature?: number
  /** Draw among the `topK` likeliest only; 0 (the default) for all. */
  readonly topK?: number
  /** Draw among the fewest tokens whose probabilities sum to `topP`; 1 (the default) for all. */
  readonly topP?: number
}

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at the most; default: as many as fit into the context. */
  readonly maxTokens?: number
  /** Ids that end the text and aren't yielded; default: the config's `eosTokenIds`. */
  readonly stop?: readonly number[]
  /** A whole number that fixes what is drawn; default: another one every time. */
  readonly seed?: number
  readonly signal?: AbortSignal
}

/** Why generation ended: a stop id came, or `maxTokens` or the context's end was reached. */
export type FinishReason = 'stop' | 'length'

/** @throws ModelError naming the first option that is out of range */
export function checkGenerateOptions(options: GenerateOptions): void {
  const rule = (name: keyof GenerateOptions, ok: (v: number) => boolean, expected: string): void => {
    const value = options[name]
    if (value !== undefined && !(typeof value === 'number' && ok(value))) {
      throw new ModelError(`Expected ${expected} for ${name} but received ${String(value)}`)
    }
  }
  rule('temperature', (v) => v >= 0 && v < Infinity, 'a finite number ≥ 0')
  rule('topK', (v) => Number.isInteger(v) && v >= 0 && v < 2 ** 31, 'a whole number ≥ 0 (0 for all)')
  rule('topP', (v) => v > 0 && v <= 1, 'a number in (0, 1]')
  rule('maxTokens', (v) => Number.isInteger(v) && v >= 0, 'a whole number ≥ 0')
  rule('seed', (v) => Number.isSafeInteger(v), 'a whole number')
}
