import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

// The emulation's search for races (kernels/cuda/tests/emulation/races.h) itself: on small kernels that are right, and on the same with
// one barrier, fence or wait left out.

const emulation = fileURLToPath(new URL('../../../../kernels/cuda/tests/emulation', import.meta.url))
const scenarios = [
  ['store then load', 'a race'],
  ['neighbouring bytes', 'a race'],
  ['copy then load', 'a race'],
  ['refill', 'a race'],
  ['shuffle', 'a race'],
  ['store out', 'no fence'],
  ['overwrite', 'a race'],
  ['asynchronous copies', 'a race'],
  ['initialize', 'a race'],
  ['neighbour', 'a race'],
] as const

const hasCompiler =
  spawnSync('c++', ['--version']).status === 0 && process.arch === 'x64' && process.platform === 'linux'
if (!hasCompiler) console.log('skipped: the search for races: needs c++ on x64 Linux')

describe.skipIf(!hasCompiler)('the search for races', () => {
  let folder: string
  let program: string
  const run = (...args: readonly string[]) => spawnSync(program, args, { encoding: 'utf8' })
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fireq-races-'))
    program = join(folder, 'races')
    const args = ['-std=c++20', '-O1', `-I${emulation}`, join(emulation, 'races.cpp'), '-o', program]
    const compiled = spawnSync('c++', args, { encoding: 'utf8' })
    expect(compiled.status, compiled.stderr).toBe(0)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  it('has these scenarios', () => {
    expect(run().stdout.trim().split('\n')).toEqual(scenarios.map(([name]) => name))
  })
  it.each(scenarios)('%s', (name, why) => {
    expect(run(name)).toMatchObject({ status: 0, stdout: '' })
    const broken = run(name, 'broken')
    expect(broken.status).toBe(1)
    expect(broken.stdout).toContain(`${why}: thread`)
  })
})
