import { markdownTable } from '../report/markdown.js'
import type { Column, Table } from '../report/report.js'
import type { AttentionRow, StoreRow } from './attention.js'
import { FORMATS } from './attention-cache.js'
import { type BenchResult, describeRun, writeBenchResult } from './provenance.js'

/** Everything that a run found and where it was. */
export interface AttentionResult extends BenchResult {
  readonly benchmark: 'attention'
  readonly rows: readonly AttentionRow[]
  readonly stores: readonly StoreRow[]
}

const baselineColumns: readonly Column[] = [
  { key: 'cudnn', title: 'cuDNN BF16, µs', digits: 1 },
  { key: 'flash', title: 'flash BF16, µs', digits: 1 },
]

/** Prefill, decode and store, those that there are, and what the ratios come to. */
export function attentionTables(result: Pick<AttentionResult, 'rows' | 'stores' | 'readBytesPerSecond'>): Table[] {
  const { rows, stores, readBytesPerSecond } = result
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
    caption: '**Store** — RoPE, FP8 queries, INT4 keys and values; bytes read and written, once each',
    columns: [
      { key: 'tokens', title: 'tokens' },
      ...shapeColumns.slice(1),
      ...[...perFormat('Rate', 'GB/s', 0), ...perFormat('Share', 'of read bandwidth', 2)],
    ],
    rows: stores.map((row) => ({
      ...{ tokens: row.tokens, heads: `${row.heads}/${row.keyHeads}`, ...row.microseconds },
      ...rates(row.microseconds, row.bytes, readBytesPerSecond),
    })),
  }
  return [summary(rows), prefill, decode, store].filter((table) => table.rows.length > 0)
}

const shapeColumns: readonly Column[] = [
  { key: 'shape', title: 'sequences × tokens' },
  { key: 'heads', title: 'heads' },
  { key: 'symmetric', title: 'symmetric, µs', digits: 2 },
  { key: 'asymmetric', title: 'asymmetric, µs', digits: 2 },
]

function perFormat(key: string, title: string, digits: number): Column[] {
  return FORMATS.map((format) => ({ key: `${format}${key}`, title: `${title}, ${format}`, digits }))
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
  return describeRun(result, [])
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
