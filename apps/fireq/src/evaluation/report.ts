import { formatNumber, formatSeconds, formatWhole } from '../terminal/format.js'
import type { EvalResult } from './run-eval.js'

/** A result for people. */
export function formatResult({ result, data, window, plan, seconds, backend }: EvalResult): string {
  const { compute, activations, queries, probabilities, kv } = plan
  const framing = data.framing === undefined ? 'tokens' : `framing ${data.framing}`
  const lines: [string, string][] = [['perplexity', formatNumber(result.perplexity, 6)]]
  if ('klDivergence' in result) {
    lines.push(['of the baseline', formatNumber(result.baselinePerplexity, 6)])
    lines.push(['KL divergence', `${formatNumber(result.klDivergence, 4)} nats per token`])
    lines.push(['top-1 agreement', `${(100 * result.top1Agreement).toFixed(2)} %`])
  }
  lines.push([
    'over',
    `${result.windows} ${result.windows === 1 ? 'window' : 'windows'} of ${window}, ${formatWhole(result.tokens)} predicted tokens`,
  ])
  lines.push(['data', `${data.file}, ${framing}, ${formatWhole(data.tokens)} tokens`])
  lines.push([
    'run as',
    `compute ${compute}, activations ${activations}, queries ${queries}, probabilities ${probabilities}, kv ${kv}`,
  ])
  lines.push(['time', `${formatSeconds(seconds)} on ${backend.name}`])
  return lines.map(([name, value]) => `${name.padEnd(16)} ${value}`).join('\n')
}
