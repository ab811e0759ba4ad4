import { availableParallelism } from 'node:os'
import type { BackendName } from './backend.js'
import { BackendError } from './errors.js'

/** Every environment variable this package reads, checked. README.md has the table. */
export interface Environment {
  /** FIREQ_BACKEND: which backend `createBackend('auto')` makes. */
  readonly backend: BackendName | 'auto'
  /** FIREQ_THREADS: threads of the cpu backend; default: as many as the process may use. */
  readonly threads: number
  /** FIREQ_ISA: instruction set of the cpu backend; default: the fastest this processor has. */
  readonly isa: InstructionSet | undefined
  /** FIREQ_ADDON: path of the native addon to load instead of the installed one. */
  readonly addon: string | undefined
}

/** `avx512-emulated` is the AVX-512 code in AVX2 instructions, for tests on machines without AVX-512. */
export type InstructionSet = 'plain' | 'avx2' | 'avx512' | 'avx512-emulated'

const backends = ['auto', 'reference', 'cpu', 'cuda'] as const
const instructionSets = ['plain', 'avx2', 'avx512', 'avx512-emulated'] as const
export const MAX_THREADS = 1024

/** Reads the variables; throws a BackendError that names a bad one. */
export function readEnvironment(env: NodeJS.ProcessEnv = process.env): Environment {
  return {
    backend: oneOf(env, 'FIREQ_BACKEND', backends) ?? 'auto',
    threads: threads(env.FIREQ_THREADS),
    isa: oneOf(env, 'FIREQ_ISA', instructionSets),
    addon: env.FIREQ_ADDON || undefined,
  }
}

function oneOf<T extends string>(env: NodeJS.ProcessEnv, name: string, values: readonly T[]): T | undefined {
  const value = env[name]
  if (value === undefined || value === '') return undefined
  const found = values.find((v) => v === value)
  if (found === undefined) {
    throw new BackendError(`Expected ${values.join(', ')} for environment variable ${name} but received '${value}'`)
  }
  return found
}

function threads(value: string | undefined): number {
  if (value === undefined || value === '') return Math.min(availableParallelism(), MAX_THREADS)
  const count = /^\d+$/.test(value) ? Number(value) : 0
  if (count < 1 || count > MAX_THREADS) {
    throw new BackendError(
      `Expected a whole number from 1 to ${MAX_THREADS} for environment variable FIREQ_THREADS but received '${value}'`,
    )
  }
  return count
}
