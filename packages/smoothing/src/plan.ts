/** The factors of one step, in short. */
export interface ScaleSummary {
  readonly min: number
  readonly max: number
  readonly count: number
  /** How many of them are 1: dead or skipped channels, which the step leaves alone. */
  readonly leftAlone: number
}

/** One fold: a scale s on one tensor and its inverse on another, so that the layer's function stays what it was. */
export interface FoldingStep {
  /** The transform and where it acts, as in "channel-wise gateUp". */
  readonly what: string
  /** How s was found, as in "s = 0.0096 / mean|W|". */
  readonly rule: string
  /** The tensor computed first, and whether it takes s or 1/s, as in "postAttentionNorm ÷ s". */
  readonly producer: string
  /** The tensor that undoes it, as in "gate, up columns × s". */
  readonly consumer: string
  /** What s runs over, as in "hiddenSize". */
  readonly axis: string
  readonly scale: ScaleSummary
}

/** What was folded where, in order. Plans of successive transforms compose by concatenation. */
export type FoldingPlan = readonly FoldingStep[]

/** The plan as a table for people to read, one line per step. */
export function printPlan(plan: FoldingPlan): string {
  if (plan.length === 0) return 'nothing folded'
  const header = ['what', 'rule', 'producer', 'consumer', 'over', 'range of s', 'left alone']
  const rows = plan.map(({ what, rule, producer, consumer, axis, scale }) => [
    ...[what, rule, producer, consumer, `${scale.count} ${axis}`],
    scale.min === scale.max ? short(scale.min) : `${short(scale.min)} … ${short(scale.max)}`,
    String(scale.leftAlone),
  ])
  const widths = header.map((title, c) => Math.max(title.length, ...rows.map((row) => row[c].length)))
  const line = (row: string[]) =>
    row
      .map((cell, c) => cell.padEnd(widths[c]))
      .join('  ')
      .trimEnd()
  return [line(header), widths.map((width) => '─'.repeat(width)).join('  '), ...rows.map(line)].join('\n')
}

export function summarize(scale: Float64Array | Float32Array): ScaleSummary {
  const summary = { min: Infinity, max: -Infinity, count: scale.length, leftAlone: 0 }
  for (const s of scale) {
    summary.min = Math.min(summary.min, s)
    summary.max = Math.max(summary.max, s)
    if (s === 1) summary.leftAlone++
  }
  return summary
}

function short(s: number): string {
  return Number(s.toPrecision(3)).toString()
}
