import { describe, it } from 'vitest'
import { backendReport, CpuBackend, type CpuOptions, type InstructionSet } from '../../src/index.js'
import { loadAddon } from '../../src/native/load.js'

const loaded = loadAddon()

/** Whether the addon is here; without it, native tests are skipped and say so. */
export const hasAddon: boolean = loaded.addon !== undefined
if (!hasAddon) console.log(`skipped: ${backendReport().find(({ name }) => name === 'cpu')?.detail}`)

/** Instruction sets that this machine runs. */
export const instructionSets: readonly InstructionSet[] = (loaded.addon?.instructionSets() ?? []).flatMap(
  ({ name, usable, reason }) => {
    if (!usable) console.log(`skipped: cpu backend with ${name}: ${reason}`)
    return usable ? [name as InstructionSet] : []
  },
)

export interface NamedBackend {
  readonly name: string
  readonly isa: InstructionSet
  readonly backend: CpuBackend
}

/** A backend for each, for {@link describeBackends}. */
export function cpuBackends(options: CpuOptions = {}): NamedBackend[] {
  return instructionSets.map((isa) => ({ name: `cpu (${isa})`, isa, backend: new CpuBackend({ ...options, isa }) }))
}

/** `describe.each` of backends; without any one skipped test, since a file without tests is an error. */
export function describeBackends(
  backends: readonly NamedBackend[],
  name: string,
  suite: (backend: NamedBackend) => void,
): void {
  if (backends.length > 0) describe.each(backends)(name, suite)
  else describe(name, () => it.skip('needs the native addon', () => {}))
}

/** `describe` that is skipped without the addon. */
export const describeNative: typeof describe.skip = hasAddon ? describe : describe.skip
