import { type LayerReport, type Preflight, printPreflight, type QuantizeProgress, type Recipe } from '@fireq/quantize'
import type { TokenData } from '../data/load-tokens.js'
import { formatBytes, formatSeconds, formatWhole } from '../terminal/format.js'
import { version } from '../version.js'
import type { QuantizeCommandOptions } from './options.js'

/** A run that has ended well. */
interface Run {
  readonly dir: string
  readonly out: string
  readonly recipe: Recipe
  readonly plan: Preflight
  readonly layers: readonly LayerReport[]
  readonly seconds: number
}

/** What will be done; with `dryRun` tensor by tensor. */
export function planText(
  dir: string,
  plan: Preflight,
  data: TokenData | undefined,
  { out, recipe, set = [], dryRun }: QuantizeCommandOptions,
): string {
  const changed = set.map(({ text }) => ` ${text}`).join('')
  return [
    `${dir} → ${out}, recipe ${recipe}${changed}`,
    ...(data ? [`calibrated on ${data.file}: ${formatWhole(data.ids.length)} tokens to choose from`] : []),
    printPreflight(plan, { tensors: dryRun }),
  ].join('\n')
}

export function planJson(
  dir: string,
  { tensors, ...plan }: Preflight,
  data: TokenData | undefined,
  { out }: QuantizeCommandOptions,
): unknown {
  const calibrationData = data && { file: data.file, sha256: data.sha256, tokens: data.ids.length }
  return { fireq: version, source: dir, out, ...plan, calibrationData, tensors }
}

/** What a progress bar says of a moment. */
export function labelOf({ stage, layer, layers, tensor }: QuantizeProgress): string {
  if (layer === undefined) return stage === 'finish' ? 'finishing' : 'copying what stays as it is'
  const what = stage === 'round' && tensor !== undefined ? `round ${tensor.split('.').at(-2)}` : stage
  return `layer ${layer + 1} of ${layers}: ${what}`
}

export function resultText({ out, plan, layers, seconds }: Run): string {
  const errors = layers.flatMap(({ weightErrors }) => Object.values(weightErrors).map(({ relative }) => relative))
  const mean = errors.reduce((a, b) => a + b, 0) / errors.length
  const lines = [
    `${out}: ${formatBytes(plan.sourceBytes)} → ${formatBytes(plan.outputBytes)} in ${formatSeconds(seconds)}`,
    `${plan.bitsPerWeight.toFixed(3)} bits per quantized weight, mean relative error ${(100 * mean).toFixed(2)} %`,
  ]
  return (errors.length === 0 ? lines.slice(0, 1) : lines).join('\n')
}

export function resultJson({ dir, out, recipe, plan, layers, seconds }: Run): unknown {
  const { sourceBytes, outputBytes, bitsPerWeight } = plan
  const date = new Date().toISOString()
  return { fireq: version, date, source: dir, out, recipe, sourceBytes, outputBytes, bitsPerWeight, seconds, layers }
}
