import { describe } from 'vitest'
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

/** A backend for each, for `describe.each`. */
export function cpuBackends(options: CpuOptions = {}): { name: string; isa: InstructionSet; backend: CpuBackend }[] {
  return instructionSets.map((isa) => ({ name: `cpu (${isa})`, isa, backend: new CpuBackend({ ...options, isa }) }))
}

/** `describe` that is skipped without the addon. */
export const describeNative: typeof describe.skip = hasAddon ? describe : describe.skip
