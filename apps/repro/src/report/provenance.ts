import { execFileSync } from 'node:child_process'
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Backend } from '@fireq/kernels'

/** Where numbers come from. */
export interface Provenance {
  readonly experiment: string
  readonly command: string
  /** ISO 8601, UTC. */
  readonly date: string
  readonly seconds: number
  /** Of the repository; absent outside of one. */
  readonly commit?: string
  /** Whether there were changes that aren't in the commit. */
  readonly dirty?: boolean
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memoryGiB: number
    readonly node: string
    /** Load average over the last minute, at the end: above `cores`, `seconds` tells little. */
    readonly load: number
  }
  readonly backend: { readonly name: string; readonly description: string }
}

export function provenanceOf(experiment: string, backend: Backend, began: Date): Provenance {
  return {
    experiment,
    command: ['fireq-repro', ...process.argv.slice(2)].join(' '),
    date: began.toISOString(),
    seconds: Math.round((Date.now() - began.getTime()) / 100) / 10,
    ...commitOf(dirname(fileURLToPath(import.meta.url))),
    machine: {
      cpu: cpus()[0]?.model.trim() ?? 'unknown',
      cores: availableParallelism(),
      memoryGiB: Math.round(totalmem() / 2 ** 30),
      node: process.version,
      load: Math.round(loadavg()[0] * 10) / 10,
    },
    backend: { name: backend.name, description: backend.description },
  }
}

/** One line for people. */
export function describeProvenance({ commit, dirty, machine, backend, date, seconds }: Provenance): string {
  const code = commit ? `commit ${commit.slice(0, 12)}${dirty ? ' with local changes' : ''}` : 'no commit'
  return `${date.slice(0, 10)}, ${code}, ${machine.cores} × ${machine.cpu}, load ${machine.load}, Node ${machine.node.slice(1)}, ${backend.name} backend (${backend.description}), ${seconds} s`
}

/** The commit of the repository that a folder is in, and whether there are changes that aren't in it. */
export function commitOf(dir: string): Pick<Provenance, 'commit' | 'dirty'> {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    return { commit: git('rev-parse', 'HEAD'), dirty: git('status', '--porcelain') !== '' }
  } catch {
    return {} // no git, or no repository: an archive of the sources
  }
}
