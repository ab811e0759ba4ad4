import { markdownTable } from '../report/markdown.js'
import type { Column, Table } from '../report/report.js'
import type { AttentionRow, SkippedRow, StoreRow } from './attention.js'
import { FORMATS } from './attention-cache.js'
import { type BenchResult, describeRun, writeBenchResult } from './provenance.js'

/** Everything that a run found and where it was. */
export interface AttentionResult extends BenchResult {
  readonly benchmark: 'attention'
  /** Of the device's memory, bytes read and written, measured before. */
  readonly copyBytesPerSecond: number
  readonly rows: readonly AttentionRow[]
  readonly skipped: readonly SkippedRow[]
  readonly stores: readonly StoreRow[]
}

const baselineColumns: readonly Column[] = [
  { key: 'cudnn', title: 'cuDNN BF16, µs', digits: 1 },
  { key: 'flash', title: 'flash BF16, µs', digits: 1 },
]

/** Prefill, decode and store, those that there are, and what the ratios come to. */
export function attentionTables(
  result: Pick<AttentionResult, 'rows' | 'skipped' | 'stores' | 'readBytesPerSecond' | 'copyBytesPerSecond'>,
): Table[] {
  const { rows, skipped, stores, readBytesPerSecond, copyBytesPerSecond } = result
  const ofKind = (kind: AttentionRow['kind']) => rows.filter((row) => row.kind === kind)
  const common = (row: AttentionRow) => ({
    shape: row.shape,
    heads: `${row.heads}/${row.keyHeads}`,
    ...row.microseconds,
    ...Object.fromEntries(FORMATS.map((format) => [`${format}Ratio`, row.ratio[format]])),
  })
  const prefill: Table = {
    caption: '**Prefill** — causal, over the INT4 cache',
    columns: [
      ...shapeColumns,
      ...perFormat('Flops', 'TFLOP/s', 0),
      ...baselineColumns,
      ...perFormat('Ratio', '× better BF16', 2),
    ],
    rows: ofKind('prefill').map((row) => ({
      ...common(row),
      ...eachFormat(row.microseconds, 'Flops', (time) => row.operations / time / 1e6),
    })),
  }
  const decode: Table = {
    caption: '**Decode** — a new token a sequence; GB/s and share of the read bandwidth of the cache’s bytes',
    columns: [
      ...[...shapeColumns, ...perFormat('Rate', 'GB/s', 0), ...perFormat('Share', 'of read bandwidth', 2)],
      ...[...baselineColumns, ...perFormat('Ratio', '× better BF16', 2)],
    ],
    rows: ofKind('decode').map((row) => ({
      ...common(row),
      ...rates(row.microseconds, row.kvBytes, readBytesPerSecond),
    })),
  }
  const store: Table = {
    caption:
      '**Store** — RoPE, post-RoPE scaling, FP8 queries, INT4 keys and values; bytes read and written, once each, and their share of what a copy moves',
    columns: [
      { key: 'tokens', title: 'tokens' },
      ...shapeColumns.slice(1),
      ...[...perFormat('Rate', 'GB/s', 0), ...perFormat('Share', 'of a copy', 2)],
    ],
    rows: stores.map((row) => ({
      ...{ tokens: row.tokens, heads: `${row.heads}/${row.keyHeads}`, ...row.microseconds },
      ...rates(row.microseconds, row.bytes, copyBytesPerSecond),
    })),
  }
  return [summary(rows), prefill, decode, store, errors(rows), notRun(skipped)].filter((table) => table.rows.length > 0)
}

const sequences: Column = { key: 'shape', title: 'sequences × tokens' }
const heads: Column = { key: 'heads', title: 'heads' }
const shapeColumns: readonly Column[] = [
  sequences,
  heads,
  { key: 'symmetric', title: 'symmetric, µs', digits: 2 },
  { key: 'asymmetric', title: 'asymmetric, µs', digits: 2 },
]

function perFormat(key: string, title: string, digits: number): Column[] {
  return FORMATS.map((format) => ({ key: `${format}${key}`, title: `${title}, ${format}`, digits }))
}

function errors(rows: readonly AttentionRow[]): Table {
  const scientific = (value: number | undefined) => value?.toExponential(2)
  return {
    caption:
      '**Errors** — relative, against float64 attention on a sample of rows and heads: of the keys and values that each was given (ours: that the cache holds), and with INT4’s rounding of them',
    columns: [
      { key: 'kind', title: '' },
      sequences,
      heads,
      ...FORMATS.map((format) => ({ key: format, title: format })),
      { key: 'cudnn', title: 'cuDNN BF16' },
      { key: 'flash', title: 'flash BF16' },
      ...FORMATS.map((format) => ({ key: `${format}Total`, title: `with INT4’s, ${format}` })),
    ],
    rows: rows.map(({ kind, shape, heads, keyHeads, error, totalError }) => ({
      ...{ kind, shape, heads: `${heads}/${keyHeads}` },
      ...Object.fromEntries(Object.entries(error).map(([name, value]) => [name, scientific(value)])),
      ...Object.fromEntries(FORMATS.map((format) => [`${format}Total`, scientific(totalError[format])])),
    })),
  }
}

function notRun(skipped: readonly SkippedRow[]): Table {
  return {
    caption: '**Not run**',
    columns: [{ key: 'kind', title: '' }, sequences, heads, { key: 'why', title: 'why' }],
    rows: skipped.map(({ kind, shape, heads, keyHeads, why }) => ({ kind, shape, heads: `${heads}/${keyHeads}`, why })),
  }
}

function eachFormat(
  times: StoreRow['microseconds'],
  key: string,
  value: (microseconds: number) => number,
): Record<string, number> {
  return Object.fromEntries(
    FORMATS.flatMap((format) => (times[format] === undefined ? [] : [[`${format}${key}`, value(times[format])]])),
  )
}

function rates(times: StoreRow['microseconds'], bytes: number, readBytesPerSecond: number): Record<string, number> {
  return {
    ...eachFormat(times, 'Rate', (time) => bytes / time / 1e3),
    ...eachFormat(times, 'Share', (time) => (bytes * 1e6) / time / readBytesPerSecond),
  }
}

/** Geometric means of baselines' times over ours, symmetric ones, by kind and heads. */
function summary(rows: readonly AttentionRow[]): Table {
  const groups = [...new Set(rows.map(({ kind, heads, keyHeads }) => `${kind}, ${heads}/${keyHeads} heads`))]
  const mean = (ratios: readonly number[]) =>
    ratios.length === 0 ? undefined : Math.exp(ratios.reduce((sum, r) => sum + Math.log(r), 0) / ratios.length)
  return {
    caption: 'Our speed over PyTorch’s BF16, symmetric cache, geometric means over the shapes',
    columns: [
      { key: 'group', title: '' },
      { key: 'cudnn', title: 'over cuDNN', digits: 3 },
      { key: 'flash', title: 'over flash', digits: 3 },
      { key: 'better', title: 'over the better', digits: 3 },
    ],
    rows: groups.flatMap((group) => {
      const own = rows.filter(({ kind, heads, keyHeads }) => `${kind}, ${heads}/${keyHeads} heads` === group)
      const over = (name: 'cudnn' | 'flash') =>
        mean(
          own.flatMap(({ microseconds: t }) =>
            t[name] !== undefined && t.symmetric !== undefined ? t[name] / t.symmetric : [],
          ),
        )
      const better = mean(own.flatMap(({ ratio }) => ratio.symmetric ?? []))
      return better === undefined ? [] : [{ group, cudnn: over('cudnn'), flash: over('flash'), better }]
    }),
  }
}

/** Where it ran, a line for people. */
export function describeAttentionRun(result: AttentionResult): string {
  return describeRun(result, [`${(result.copyBytesPerSecond / 1e12).toFixed(2)} TB/s copied`])
}

/** Writes attention-<date>.json and .md; returns their paths. */
export function writeAttentionResult(result: AttentionResult, outDir: string): Promise<string[]> {
  const text = [
    '# Attention over an INT4 cache beside PyTorch’s in BF16',
    `\`${result.command}\`: ${describeAttentionRun(result)}. Medians of graph replays in turns; caches of decoding and inputs of storing rotated past the L2, pages all over the cache. head_dim 128.`,
    ...attentionTables(result).flatMap((table) => [table.caption!, markdownTable(table)]),
  ]
  return writeBenchResult(result, text, outDir)
}
