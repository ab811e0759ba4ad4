import type { Backend, BackendName } from './backend.js'
import { cudaStatus, describeStatus } from './cuda/status.js'
import { type InstructionSet, readEnvironment } from './env.js'
import { BackendError } from './errors.js'
import { CpuBackend } from './native/cpu-backend.js'
import { explainFailure, loadAddon } from './native/load.js'
import { ReferenceBackend } from './reference/backend.js'

export interface CreateBackendOptions {
  /** Threads of the cpu backend; default: FIREQ_THREADS, else every processor the process may use. */
  readonly threads?: number
  /** Instruction set of the cpu backend; default: FIREQ_ISA, else the fastest this processor has. */
  readonly isa?: InstructionSet
  /** Hears one line when `auto` has to do without a faster backend; default: a line on stderr. */
  readonly onNotice?: (line: string) => void
}

/** A backend as `fireq doctor` shows it. */
export interface BackendStatus {
  readonly name: BackendName
  readonly usable: boolean
  /** What it is or, if it isn't usable, why not and what to do. May have several lines. */
  readonly detail: string
}

/**
 * Makes a backend. `auto` is what FIREQ_BACKEND says, else the fastest usable one: cpu if its addon loads, otherwise the
 * TypeScript reference, which is slow, so it is said aloud. A backend asked for by name is that one or a BackendError.
 */
export function createBackend(name: BackendName | 'auto', options: CreateBackendOptions = {}): Backend {
  const wanted = name === 'auto' ? readEnvironment().backend : name
  switch (wanted) {
    case 'reference':
      return new ReferenceBackend()
    case 'cpu':
      return new CpuBackend(options)
    case 'cuda':
      throw new BackendError(`The cuda backend isn't usable: ${cudaBackendStatus().detail}`)
    case 'auto':
      return createFastest(options)
    default:
      throw new BackendError(`Expected auto, reference, cpu or cuda for the backend but received '${wanted}'`)
  }
}

/** Every backend there is, and which can be used here. */
export function backendReport(): BackendStatus[] {
  return [
    { name: 'reference', usable: true, detail: 'plain TypeScript, one thread: defines the numerics, slow' },
    cpuStatus(),
    cudaBackendStatus(),
  ]
}

function createFastest(options: CreateBackendOptions): Backend {
  const status = cpuStatus()
  if (status.usable) return new CpuBackend(options)
  const notice = options.onNotice ?? ((line: string) => process.stderr.write(`${line}\n`))
  const why = status.detail.replace(/\s*\n\s*/g, ' ')
  notice(`fireq: running on the TypeScript reference backend, which is slow. ${why}`)
  return new ReferenceBackend()
}

function cpuStatus(): BackendStatus {
  const loaded = loadAddon()
  if (loaded.addon === undefined) return { name: 'cpu', usable: false, detail: explainFailure(loaded.attempts) }
  const sets = loaded.addon.instructionSets().filter(({ usable, name }) => usable && !name.endsWith('-emulated'))
  return { name: 'cpu', usable: true, detail: `C++ (${sets.map(({ name }) => name).join(', ')}) from ${loaded.from}` }
}

function cudaBackendStatus(): BackendStatus {
  const status = cudaStatus()
  const detail = describeStatus(status)
  return { name: 'cuda', usable: false, detail: status.usable ? `programs don't run on it yet (${detail})` : detail }
}
