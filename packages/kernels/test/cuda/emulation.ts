import { execFile, spawnSync } from 'node:child_process'
import { cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe } from 'vitest'

// Kernels on the host: kernels/cuda/tests/emulation runs their threads as fibers, with a warp's and a warpgroup's instructions, clusters
// and the copy engine emulated, and looks for races. Compiling and running are asynchronous, so that tests share the cores.

/** The folder of the kernels' sources. */
export const kernels: string = fileURLToPath(new URL('../../../../kernels/cuda', import.meta.url))

const canEmulate =
  process.arch === 'x64' && process.platform === 'linux' && spawnSync('c++', ['--version']).status === 0
let folder: string | undefined
let shared: Promise<string> | undefined // what all programs are linked with
let outputs = 0
afterAll(() => {
  if (folder !== undefined) rmSync(folder, { recursive: true })
})

/** `describe` of tests that run at the same time, as many as `maxConcurrency`; skipped where kernels can't be emulated. */
export function describeEmulated(name: string, tests: () => void): void {
  if (!canEmulate) console.log(`skipped: ${name}: needs c++ on x64 Linux`)
  describe.skipIf(!canEmulate)(name, { concurrent: true, timeout: 120_000 }, tests)
}

/** Kernels to emulate, seconds each: all with FIREQ_SLOW_TESTS=1, else every `step`-th. */
export function emulated<T>(instances: readonly T[], step: number): T[] {
  return instances.filter((_, i) => process.env.FIREQ_SLOW_TESTS === '1' || i % step === 0)
}

/** The program of a source in kernels/cuda/tests/emulation, with what is chosen at compile time. */
export async function compile(
  source: string,
  defines: Readonly<Record<string, string | number>> = {},
): Promise<string> {
  folder ??= gatherSources()
  shared ??= compiler('-c', 'emulation.cpp')
  const names = Object.entries(defines).map(([name, value]) => `-D${name}=${value}`)
  return compiler(...(await Promise.all([compiler('-c', source, ...names), shared])))
}

/**
 * Its output's path. The machine's own instructions halve the time; sums contracted to FMAs would be others than the kernels'; fibers jump
 * between stacks, which some compilers' hardening forbids.
 */
async function compiler(...args: readonly string[]): Promise<string> {
  const output = join(folder!, `${outputs++}.o`)
  const flags = ['-std=c++20', '-O3', '-march=native', '-ffp-contract=off', '-U_FORTIFY_SOURCE', '-I.']
  await run('c++', [...flags, ...args, '-o', output], folder)
  return output
}

/** The kernels' headers in a new folder, but for those that the emulation has its own of. */
function gatherSources(): string {
  const to = mkdtempSync(join(tmpdir(), 'fireq-emulation-'))
  for (const name of readdirSync(kernels)) if (/\.(cuh|h)$/.test(name)) cpSync(join(kernels, name), join(to, name))
  cpSync(join(kernels, 'tests/emulation'), to, { recursive: true })
  return to
}

/** What a program prints. It throws all output of one that fails. */
export async function run(program: string, args: readonly string[] = [], cwd?: string): Promise<string> {
  try {
    return (await promisify(execFile)(program, args, { cwd, maxBuffer: 2 ** 26 })).stdout
  } catch (error) {
    const { code, signal, stdout, stderr } = error as Record<'code' | 'signal' | 'stdout' | 'stderr', unknown>
    throw new Error(`${program} ended with ${code ?? signal}: ${stdout}${stderr}`)
  }
}

export type Part = Uint8Array | Int32Array | Float32Array

/** The BF16 rows that a program makes of sizes, the softmax's scale, and arrays, each behind its bytes as i64 (parts.h). */
export async function runOn(
  program: string,
  sizes: readonly number[],
  softmaxScale: number,
  parts: readonly Part[],
): Promise<Uint16Array> {
  const behind = parts.flatMap((part) => [BigInt64Array.of(BigInt(part.byteLength)), part])
  const input = [Int32Array.from(sizes), Float32Array.of(softmaxScale), ...behind]
  const bytes = input.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength))
  await writeFile(`${program}.in`, Buffer.concat(bytes))
  await run(program, [`${program}.in`, `${program}.out`])
  const found = await readFile(`${program}.out`)
  return new Uint16Array(found.buffer, found.byteOffset, found.length / 2)
}
