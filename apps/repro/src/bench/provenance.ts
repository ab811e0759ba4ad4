import { mkdir } from 'node:fs/promises'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { writeFileAtomic } from '@fireq/formats'
import { type CudaDevice, cudaStatus } from '@fireq/kernels'
import { commitOf } from '../report/provenance.js'
import type { BaselinesRun } from './baseline-process.js'
import { queryGpu } from './gpu.js'

/** Where and from what a benchmark ran. */
export interface Provenance {
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
}

/** What every benchmark of kernels tells beside its rows. */
export interface BenchResult extends Provenance {
  readonly benchmark: string
  readonly baselines: BaselinesRun
  readonly rounds: number
  /** Of the device's memory, measured before. */
  readonly readBytesPerSecond: number
}

export async function provenanceOf(device: CudaDevice, began: Date): Promise<Provenance> {
  const { driverRelease, toolkitVersion } = cudaStatus()
  const limits = await queryGpu('clocks.max.sm', 'clocks.max.mem', 'power.limit')
  const { FIREQ_COMMIT } = process.env
  return {
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
  }
}

/** A line for people; `settings`: the benchmark's own. */
export function describeRun(result: BenchResult, settings: readonly string[]): string {
  const { machine, baselines, commit, dirty, date, rounds, readBytesPerSecond } = result
  const read = `${(readBytesPerSecond / 1e12).toFixed(2)} TB/s read`
  const code = commit ? `commit ${commit.slice(0, 12)}${dirty ? ' with local changes' : ''}` : 'no commit'
  const versus = 'torch' in baselines ? `PyTorch ${baselines.torch}` : `baselines not run: ${baselines.notRun}`
  const { gpu, driver, cuda, limits } = machine
  const own = [...settings, `medians of ${rounds}`].join(', ')
  return `${date.slice(0, 16).replace('T', ' ')} UTC, ${code}, ${gpu}, driver ${driver}, CUDA ${cuda}, limits ${limits}, ${read}; ${versus}; ${own}`
}

/** Writes <benchmark>-<date>.json and .md, its paragraphs; returns their paths. */
export async function writeBenchResult(
  result: BenchResult,
  paragraphs: readonly string[],
  outDir: string,
): Promise<string[]> {
  const stamp = result.date.slice(0, 19).replaceAll(':', '').replace('T', '-')
  const base = join(outDir, `${result.benchmark}-${stamp}`)
  await mkdir(outDir, { recursive: true })
  await writeFileAtomic(`${base}.json`, `${JSON.stringify(result, undefined, 1)}\n`, true)
  await writeFileAtomic(`${base}.md`, `${paragraphs.join('\n\n')}\n`, true)
  return [`${base}.json`, `${base}.md`]
}
