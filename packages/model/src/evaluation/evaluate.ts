import { setImmediate } from 'node:timers/promises'
import { ModelError } from '../errors.js'
import type { LogitsChunk, LogitsOptions } from '../logits.js'
import { argMax, klOfLogits, logSumExp } from './log-softmax.js'

/** What of a model is evaluated; a `LanguageModel` is one. */
export interface ScoredModel {
  readonly config: { readonly vocabSize: number }
  streamLogits(ids: ArrayLike<number>, options?: LogitsOptions): AsyncGenerator<LogitsChunk, void, void>
}

export interface EvaluateOptions {
  readonly signal?: AbortSignal
  /** Called after each window; `nll` is the mean so far, in nats per token. */
  readonly onProgress?: (progress: { done: number; total: number; nll: number }) => void
}

export interface Evaluation {
  readonly windows: number
  /** Predicted tokens: all but the first of each window. */
  readonly tokens: number
  /** exp(mean negative log-likelihood of the predicted tokens). */
  readonly perplexity: number
}

export interface Comparison extends Evaluation {
  readonly baselinePerplexity: number
  /** Mean over predicted tokens of KL(baseline ‖ model), in nats. */
  readonly klDivergence: number
  /** Share of predicted tokens at which both models' likeliest token is the same. */
  readonly top1Agreement: number
}

/**
 * Perplexity on windows of tokens (see `tokenWindows`) and, with a `baseline`, how far the model is from it: both
 * models read each window in step, so that neither's logits are kept.
 */
export function evaluate(
  model: ScoredModel,
  windows: readonly Int32Array[],
  options: EvaluateOptions & { readonly baseline: ScoredModel },
): Promise<Comparison>
export function evaluate(
  model: ScoredModel,
  windows: readonly Int32Array[],
  options?: EvaluateOptions,
): Promise<Evaluation>
export async function evaluate(
  model: ScoredModel,
  windows: readonly Int32Array[],
  { baseline, signal, onProgress }: EvaluateOptions & { readonly baseline?: ScoredModel } = {},
): Promise<Evaluation | Comparison> {
  checkInputs(model, baseline, windows)
  const sums = { tokens: 0, nll: 0, baselineNll: 0, kl: 0, agreed: 0 }
  for (const [index, ids] of windows.entries()) {
    const rows = Array.from({ length: ids.length - 1 }, (_, row) => row)
    const chunks = model.streamLogits(ids, { rows, signal })
    if (baseline === undefined) {
      for await (const { id, logits } of scoredRows(chunks, ids)) {
        sums.tokens++
        sums.nll += logSumExp(logits) - logits[id]!
      }
    } else {
      const baselineRows = scoredRows(baseline.streamLogits(ids, { rows, signal }), ids)
      for await (const [{ id, logits }, base] of inStep(scoredRows(chunks, ids), baselineRows)) {
        sums.tokens++
        sums.nll += logSumExp(logits) - logits[id]!
        sums.baselineNll += logSumExp(base.logits) - base.logits[id]!
        sums.kl += klOfLogits(base.logits, logits)
        sums.agreed += argMax(logits) === argMax(base.logits) ? 1 : 0
      }
    }
    onProgress?.({ done: index + 1, total: windows.length, nll: sums.nll / sums.tokens })
  }
  const { tokens } = sums
  const result = { windows: windows.length, tokens, perplexity: Math.exp(sums.nll / tokens) }
  if (baseline === undefined) return result
  return {
    ...result,
    baselinePerplexity: Math.exp(sums.baselineNll / tokens),
    klDivergence: sums.kl / tokens,
    top1Agreement: sums.agreed / tokens,
  }
}

/** exp(mean negative log-likelihood) over windows: total / (windows · (windowSize − 1)), as GPTQ's evaluation. */
export async function perplexity(
  model: ScoredModel,
  windows: readonly Int32Array[],
  options?: EvaluateOptions,
): Promise<number> {
  return (await evaluate(model, windows, options)).perplexity
}

/** Mean KL(baseline ‖ model) in nats per predicted token. */
export async function klDivergence(
  model: ScoredModel,
  baseline: ScoredModel,
  windows: readonly Int32Array[],
  options?: EvaluateOptions,
): Promise<number> {
  return (await evaluate(model, windows, { ...options, baseline })).klDivergence
}

interface ScoredRow {
  /** The token that came next. */
  readonly id: number
  readonly logits: Float32Array
}

/** Elements of logits to work on before other tasks of the event loop get their turn. */
const BREATH = 2 ** 21

async function* scoredRows(chunks: AsyncIterable<LogitsChunk>, ids: Int32Array): AsyncGenerator<ScoredRow, void, void> {
  let worked = 0
  for await (const { rows, logits } of chunks) {
    const vocabSize = logits.length / rows.length
    for (const [i, row] of rows.entries()) {
      yield { id: ids[row + 1]!, logits: logits.subarray(i * vocabSize, (i + 1) * vocabSize) }
      worked += vocabSize
      if (worked < BREATH) continue
      await setImmediate()
      worked = 0
    }
  }
}

/** Pairs of two streams of equal length. If one fails or the reader leaves, both end. */
async function* inStep<A, B>(
  first: AsyncGenerator<A, void, void>,
  second: AsyncGenerator<B, void, void>,
): AsyncGenerator<[A, B], void, void> {
  try {
    for (;;) {
      const a = await first.next()
      const b = await second.next()
      if (a.done || b.done) return
      yield [a.value, b.value]
    }
  } finally {
    await first.return()
    await second.return()
  }
}

function checkInputs(model: ScoredModel, baseline: ScoredModel | undefined, windows: readonly Int32Array[]): void {
  if (windows.length === 0) throw new ModelError('Expected at least one window but received none')
  const short = windows.findIndex((ids) => ids.length < 2)
  if (short >= 0) {
    throw new ModelError(`Expected windows of at least 2 tokens but window ${short} has ${windows[short]!.length}`)
  }
  if (baseline !== undefined && baseline.config.vocabSize !== model.config.vocabSize) {
    throw new ModelError(
      `Expected a baseline with the model's vocabulary of ${model.config.vocabSize} but received one of ${baseline.config.vocabSize}`,
    )
  }
}
