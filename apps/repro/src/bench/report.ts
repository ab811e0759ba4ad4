import { mkdir } from 'node:fs/promises'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeFileAtomic } from '@fireq/formats'
import { type CudaDevice, type CudaStatus, cudaStatus } from '@fireq/kernels'
import { markdownTable } from '../report/markdown.js'
import { commitOf } from '../report/provenance.js'
import type { Column, Table } from '../report/report.js'
import type { BaselinesAbout } from './baselines.js'
import type { FeedForwardRow } from './feed-forward.js'
import type { GemmRow, GemmSettings } from './gemm.js'
import { queryGpu } from './gpu.js'

/** Everything that a run found and where it was. */
export interface GemmResult {
  readonly benchmark: 'gemm'
  readonly command: string
  /** ISO 8601, UTC. */
  readonly date: string
  readonly commit?: string
  readonly dirty?: boolean
  readonly machine: {
    readonly gpu: string
    readonly multiprocessors: number
    readonly driver: string | undefined
    readonly cuda: string | undefined
    /** The fastest that the GPU may run: SM, memory; and its power limit. */
    readonly limits: string | undefined
    readonly cpu: string
    readonly node: string
  }
  /** What the baselines ran on, or why they didn't. */
  readonly baselines: BaselinesAbout | { readonly notRun: string }
  readonly codes: GemmSettings['codes']
  readonly rounds: number
  /** Of the device's memory, measured before. */
  readonly readBytesPerSecond: number
  readonly rows: readonly GemmRow[]
  readonly feedForwards: readonly FeedForwardRow[]
}

export async function resultOf(
  device: CudaDevice,
  settings: GemmSettings,
  baselines: GemmResult['baselines'],
  measured: Pick<GemmResult, 'readBytesPerSecond' | 'rows' | 'feedForwards'>,
  began: Date,
): Promise<GemmResult> {
  const { driverRelease, toolkitVersion }: CudaStatus = cudaStatus()
  const limits = await queryGpu('clocks.max.sm', 'clocks.max.mem', 'power.limit')
  const { FIREQ_COMMIT } = process.env
  return {
    benchmark: 'gemm',
    command: ['fireq-repro', ...process.argv.slice(2)].join(' '),
    date: began.toISOString(),
    ...(FIREQ_COMMIT ? { commit: FIREQ_COMMIT } : commitOf(dirname(fileURLToPath(import.meta.url)))),
    machine: {
      gpu: device.info.name,
      multiprocessors: device.info.multiprocessors,
      driver: driverRelease ?? (await queryGpu('driver_version'))?.[0],
      cuda: toolkitVersion,
      limits: limits && `${limits[0]} SM, ${limits[1]} memory, ${limits[2]}`,
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      node: process.version,
    },
    baselines,
    codes: settings.codes,
    rounds: settings.rounds,
    ...measured,
  }
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
  const { machine, baselines, commit, dirty, date, codes, rounds, readBytesPerSecond } = result
  const read = `${(readBytesPerSecond / 1e12).toFixed(2)} TB/s read`
  const code = commit ? `commit ${commit.slice(0, 12)}${dirty ? ' with local changes' : ''}` : 'no commit'
  const versus = 'torch' in baselines ? `PyTorch ${baselines.torch}` : `baselines not run: ${baselines.notRun}`
  const { gpu, driver, cuda, limits } = machine
  const range = codes === 'sym' ? '−7…7' : '−8…7'
  return `${date.slice(0, 16).replace('T', ' ')} UTC, ${code}, ${gpu}, driver ${driver}, CUDA ${cuda}, limits ${limits}, ${read}; ${versus}; codes ${range}, medians of ${rounds}`
}

/** Writes gemm-<date>.json and .md; returns their paths. */
export async function writeGemmResult(result: GemmResult, outDir: string): Promise<string[]> {
  const base = join(outDir, `gemm-${result.date.slice(0, 19).replaceAll(':', '').replace('T', '-')}`)
  const text = [
    '# INT4 × FP8 linear layers beside cuBLASLt',
    `\`${result.command}\`: ${describeMachine(result)}. Medians of graph replays in turns; weights rotated past the L2; FP8 with fast accumulation. GB/s count weights, activations and results once. Errors are ‖out − exact‖ / ‖exact‖ in float64 on a sample.`,
    ...[ratioTable(result.rows), ...shapeTables(result), ...feedForwardTables(result.feedForwards)].flatMap((table) => [
      table.caption!,
      markdownTable(table),
    ]),
  ]
  await mkdir(outDir, { recursive: true })
  await writeFileAtomic(`${base}.json`, `${JSON.stringify(result, undefined, 1)}\n`, true)
  await writeFileAtomic(`${base}.md`, `${text.join('\n\n')}\n`, true)
  return [`${base}.json`, `${base}.md`]
}

function groupByShape(rows: readonly GemmRow[]): Map<string, GemmRow[]> {
  const groups = new Map<string, GemmRow[]>()
  for (const row of rows) {
    const key = `${row.n} × ${row.k}`
    groups.set(key, [...(groups.get(key) ?? []), row])
  }
  return groups
}
