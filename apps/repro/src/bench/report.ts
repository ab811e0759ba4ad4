import { markdownTable } from '../report/markdown.js'
import type { Column, Table } from '../report/report.js'
import type { FeedForwardRow } from './feed-forward.js'
import type { GemmRow, GemmSettings } from './gemm.js'
import { type BenchResult, describeRun, writeBenchResult } from './provenance.js'

/** Everything that a run found and where it was. */
export interface GemmResult extends BenchResult {
  readonly benchmark: 'gemm'
  readonly codes: GemmSettings['codes']
  readonly rows: readonly GemmRow[]
  readonly feedForwards: readonly FeedForwardRow[]
}

const columns: readonly Column[] = [
  { key: 'm', title: 'tokens' },
  { key: 'ours', title: 'µs', digits: 2 },
  { key: 'teraflops', title: 'TFLOP/s', digits: 0 },
  { key: 'gigabytes', title: 'GB/s', digits: 0 },
  { key: 'ofPeak', title: 'of read bandwidth', digits: 2 },
  { key: 'fp8Tensor', title: 'FP8 tensor-wise, µs', digits: 2 },
  { key: 'fp8Row', title: 'FP8 row-wise, µs', digits: 2 },
  { key: 'bf16', title: 'BF16, µs', digits: 2 },
  { key: 'ratio', title: '× better FP8', digits: 3 },
  { key: 'error', title: 'error' },
  { key: 'fp8Error', title: 'FP8 row-wise error' },
  { key: 'kernel', title: 'kernel' },
]

/** A table a shape. */
export function shapeTables({ rows, readBytesPerSecond }: Pick<GemmResult, 'rows' | 'readBytesPerSecond'>): Table[] {
  const shapes = groupByShape(rows)
  return [...shapes].map(([shape, own]) => ({
    caption: `**${shape}** — ${own[0]!.layers.join(', ')}`,
    columns,
    rows: own.map(({ m, microseconds, teraflops, gigabytesPerSecond, ratio, error, fp8Error, kernel }) => ({
      m,
      ...microseconds,
      teraflops,
      gigabytes: gigabytesPerSecond,
      ofPeak: (gigabytesPerSecond * 1e9) / readBytesPerSecond,
      ratio,
      error: error.toExponential(2),
      fp8Error: fp8Error?.toExponential(2),
      kernel,
    })),
  }))
}

/** A table a model. */
export function feedForwardTables(rows: readonly FeedForwardRow[]): Table[] {
  return [...new Set(rows.map(({ model }) => model))].map((model) => ({
    caption: `**Feed-forward of ${model}** — SiLU(gate) · up, its rounding to FP8 and the residual, beside the two GEMMs alone`,
    columns: [
      { key: 'm', title: 'tokens' },
      { key: 'gemms', title: 'GEMMs, µs', digits: 2 },
      { key: 'block', title: 'block, µs', digits: 2 },
      { key: 'ratio', title: '× GEMMs', digits: 3 },
      { key: 'withNorm', title: 'with RMSNorm → FP8, µs', digits: 2 },
    ],
    rows: rows
      .filter((row) => row.model === model)
      .map(({ m, microseconds, ratio }) => ({ m, ...microseconds, ratio })),
  }))
}

/** Geometric means over shapes, and the worst of them, by the number of tokens. */
export function ratioTable(rows: readonly GemmRow[]): Table {
  const byTokens = [...new Set(rows.map(({ m }) => m))].map((m) => {
    const ratios = rows.filter((row) => row.m === m).flatMap(({ ratio }) => (ratio === undefined ? [] : [ratio]))
    const mean = Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length)
    return ratios.length === 0 ? { m } : { m, mean, least: Math.min(...ratios), most: Math.max(...ratios) }
  })
  return {
    caption: 'Our speed over the better of cuBLASLt’s tensor-wise and row-wise FP8, over all shapes',
    columns: [
      { key: 'm', title: 'tokens' },
      { key: 'mean', title: 'geometric mean', digits: 3 },
      { key: 'least', title: 'least', digits: 3 },
      { key: 'most', title: 'most', digits: 3 },
    ],
    rows: byTokens,
  }
}

/** Where it ran, a line for people. */
export function describeMachine(result: GemmResult): string {
  return describeRun(result, [`codes ${result.codes === 'sym' ? '−7…7' : '−8…7'}`])
}

/** Writes gemm-<date>.json and .md; returns their paths. */
export function writeGemmResult(result: GemmResult, outDir: string): Promise<string[]> {
  const tables = [ratioTable(result.rows), ...shapeTables(result), ...feedForwardTables(result.feedForwards)]
  const text = [
    '# INT4 × FP8 linear layers beside cuBLASLt',
    `\`${result.command}\`: ${describeMachine(result)}. Medians of graph replays in turns; weights rotated past the L2; FP8 with fast accumulation. GB/s count weights, activations and results once. Errors are ‖out − exact‖ / ‖exact‖ in float64 on a sample.`,
    ...tables.flatMap((table) => [table.caption!, markdownTable(table)]),
  ]
  return writeBenchResult(result, text, outDir)
}

function groupByShape(rows: readonly GemmRow[]): Map<string, GemmRow[]> {
  const groups = new Map<string, GemmRow[]>()
  for (const row of rows) {
    const key = `${row.n} × ${row.k}`
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  return groups
}
