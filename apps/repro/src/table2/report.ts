import { basename } from 'node:path'
import type { ModelSource } from '@fireq/formats'
import { printPlan } from '@fireq/smoothing'
import { observedTaps } from '../evaluation/observe.js'
import type { Report, Section, Table } from '../report/report.js'
import type { TokenData } from '../subjects/token-data.js'
import { divergenceFigure, errorFigures, inputsFigure, keysFigure, peak, peaksFigure } from './figures.js'
import type { RowResult, SubjectResult } from './result.js'
import type { Table2Settings } from './settings.js'

/** The row whose activations are drawn as "after smoothing". */
const SMOOTHED_ROW = 'post-rope'

export interface Table2Results {
  readonly settings: Table2Settings
  readonly source: ModelSource
  readonly data: TokenData
  readonly subjects: readonly SubjectResult[]
}

export function table2Report({ settings, source, data, subjects }: Table2Results): Report {
  const standin = settings.model === undefined
  const [first] = subjects
  return {
    title: "FireQ's table 2 and its ablation",
    summary: [
      `${standin ? 'The stand-in, a small trained Llama' : basename(source.dir)}: ${describeModel(source)}. ${data.description}`,
      `W4A8KV4: INT4 weights and KV cache, FP8 activations, ${settings.compute === 'bf16' ? 'BF16' : 'FP32'} between ops; every row with queries and softmax probabilities (Q, P) in BF16, as in the paper, and in FP8. KL divergence is from the unquantized model (first row, Q and P in BF16), in nats per token, ± the standard error over windows; ${first.rows[0].off.tokens} tokens are predicted. Bits per weight are those of the decoder layers' linears, group scales included.`,
    ],
    caveats: caveats(standin, subjects),
    sections: [rowsSection(first), ...subjects.map((subject) => subjectSection(subject, source))],
    settings: { ...settings, model: settings.model ?? 'stand-in', windows: data.windows.length },
    data: { synthetic: standin, subjects: subjects.map(numbers) },
  }
}

function describeModel({ config }: ModelSource): string {
  const { numHiddenLayers, hiddenSize, numAttentionHeads, numKeyValueHeads, headDim } = config
  return `${numHiddenLayers} layers, hidden ${hiddenSize}, ${numAttentionHeads} query and ${numKeyValueHeads} key-value heads of ${headDim}`
}

function caveats(standin: boolean, subjects: readonly SubjectResult[]): string[] {
  const lines: string[] = []
  if (standin) {
    lines.push(
      'The stand-in has 8 million parameters and none of the outlier channels that make large models hard to quantize. It compares methods; nothing here is a result on Llama.',
    )
  }
  const outliers = subjects.find((subject) => subject.outliers)?.outliers
  if (outliers) {
    lines.push(
      `The outliers are synthetic: activations multiplied by powers of two, undone in the weights that consume them. The unquantized model with them is the same function: FP32 logits of ${outliers.tokens} tokens differ by ${outliers.relativeDifference.toExponential(1)} relative to the largest.`,
    )
  }
  return lines
}

function rowsSection({ rows }: SubjectResult): Section {
  return {
    title: 'What each row is',
    tables: [
      {
        columns: [
          { key: 'label', title: 'row' },
          { key: 'adds', title: 'what it is, or adds to the row above' },
        ],
        rows: rows.map(({ label, adds }) => ({ label, adds })),
      },
    ],
    details: [
      {
        title: 'Recipes',
        text: rows
          .filter(({ recipe }) => recipe)
          .map(({ label, recipe }) => `${label}\n${JSON.stringify(recipe, null, 2)}`)
          .join('\n\n'),
      },
    ],
  }
}

function subjectSection(subject: SubjectResult, { config }: ModelSource): Section {
  const [original] = subject.rows
  const smoothed = subject.rows.find(({ id }) => id === SMOOTHED_ROW)!
  return {
    title: subject.title,
    tables: [resultTable(subject.rows)],
    figures: [
      divergenceFigure(subject),
      keysFigure(original.maxima, smoothed.maxima, config.headDim),
      inputsFigure(original.maxima, smoothed.maxima),
      peaksFigure(original.maxima, smoothed.maxima),
      ...errorFigures(subject),
    ],
    details: [{ title: `What ${smoothed.label} folds in the first layer`, text: printPlan(smoothed.folds![0]) }],
  }
}

function resultTable(rows: readonly RowResult[]): Table {
  const runs = [
    { group: 'Q, P in BF16', key: 'off' },
    { group: 'Q, P in FP8', key: 'on' },
  ] as const
  return {
    columns: [
      { key: 'label', title: 'row' },
      ...runs.flatMap(({ group, key }) => [
        { key: `${key}.perplexity`, title: 'perplexity', group, digits: 3 },
        { key: `${key}.kl`, title: 'KL, nats', group, digits: 4 },
      ]),
      { key: 'weightBits', title: 'bits per weight', digits: 3 },
      { key: 'kvBits', title: 'KV bits', digits: 3 },
    ],
    rows: rows.map(({ label, off, on, bitsPerWeight, kvBits }) => ({
      label,
      'off.perplexity': off.perplexity,
      'off.kl': off.kl,
      'on.perplexity': on.perplexity,
      'on.kl': on.kl,
      weightBits: bitsPerWeight ?? 16,
      kvBits,
    })),
  }
}

/** Everything measured, less whole activations: of those, how far the largest channel stands above the median. */
function numbers({ rows, ...subject }: SubjectResult): unknown {
  return {
    ...subject,
    injectedOutliers: subject.outliers !== undefined,
    rows: rows.map(({ maxima, folds, ...row }) => ({
      ...row,
      outliersByLayer: Object.fromEntries(observedTaps.map((tap) => [tap, maxima.map((layer) => peak(layer[tap]))])),
    })),
  }
}
