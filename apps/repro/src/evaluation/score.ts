import { evaluate, type ScoredModel } from '@fireq/model'
import type { Uncertain } from '../report/report.js'

/** How a model does on some windows, and how far it is from the unquantized one. */
export interface Score {
  readonly tokens: number
  readonly perplexity: number
  /** KL(unquantized ‖ model), nats a token; the error is that of the mean over windows. */
  readonly kl: Uncertain
  /** Share of tokens at which both find the same token likeliest. */
  readonly top1Agreement: number
}

export interface ScoreOptions {
  readonly signal?: AbortSignal
  /** Part that is done, 0…1. */
  readonly onProgress?: (fraction: number) => void
}

/** @param baseline the unquantized model; if left out, `model` is it, and its divergence 0 */
export async function score(
  model: ScoredModel,
  baseline: ScoredModel | undefined,
  windows: readonly Int32Array[],
  { signal, onProgress }: ScoreOptions = {},
): Promise<Score> {
  const sums = { tokens: 0, nll: 0, agreed: 0 }
  const divergences: { tokens: number; kl: number }[] = []
  for (const [i, window] of windows.entries()) {
    const { tokens, perplexity, klDivergence, top1Agreement } = baseline
      ? await evaluate(model, [window], { baseline, signal })
      : { ...(await evaluate(model, [window], { signal })), klDivergence: 0, top1Agreement: 1 }
    sums.tokens += tokens
    sums.nll += tokens * Math.log(perplexity)
    sums.agreed += tokens * top1Agreement
    divergences.push({ tokens, kl: klDivergence })
    onProgress?.((i + 1) / windows.length)
  }
  const { tokens, nll, agreed } = sums
  return {
    tokens,
    perplexity: Math.exp(nll / tokens),
    kl: baseline ? meanOver(divergences, tokens) : { mean: 0 },
    top1Agreement: agreed / tokens,
  }
}

/** The mean over tokens, and its standard error from the spread between windows (none for a single one). */
function meanOver(windows: readonly { tokens: number; kl: number }[], tokens: number): Uncertain {
  const mean = windows.reduce((sum, window) => sum + window.tokens * window.kl, 0) / tokens
  if (windows.length === 1) return { mean }
  const squares = windows.reduce((sum, { kl }) => sum + (kl - mean) ** 2, 0)
  return { mean, standardError: Math.sqrt(squares / (windows.length - 1) / windows.length) }
}
