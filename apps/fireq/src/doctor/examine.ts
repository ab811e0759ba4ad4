import { availableParallelism, cpus, totalmem } from 'node:os'
import { type BackendStatus, backendReport } from '@fireq/kernels'
import { version } from '../version.js'

/** What bears on running models on this machine. */
export interface Health {
  readonly fireq: string
  readonly node: string
  readonly platform: string
  readonly cpu: string
  /** That this process may use. */
  readonly cores: number
  readonly memoryBytes: number
  readonly freeMemoryBytes: number
  readonly backends: readonly BackendStatus[]
  /** Variables that fireq reads, where they are set. */
  readonly environment: Readonly<Record<string, string>>
  /** What keeps every command from running. */
  readonly problem?: string
}

export function examine(env: NodeJS.ProcessEnv): Health {
  const common = {
    fireq: version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryBytes: Math.min(process.constrainedMemory() || Infinity, totalmem()),
    freeMemoryBytes: process.availableMemory(),
    environment: environmentOf(env),
  }
  try {
    return { ...common, backends: backendReport() }
  } catch (error) {
    return { ...common, backends: [], problem: (error as Error).message }
  }
}

function environmentOf(env: NodeJS.ProcessEnv): Record<string, string> {
  const seen = Object.entries(env).filter(([name]) => name.startsWith('FIREQ_') || name === 'NO_COLOR')
  return Object.fromEntries(seen.filter((entry): entry is [string, string] => entry[1] !== undefined).sort())
}
