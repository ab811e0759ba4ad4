import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

// What of kernels/cuda is plain C++ has tests in plain C++.
const folder = fileURLToPath(new URL('../../../../kernels/cuda/tests', import.meta.url))
const hasCompiler = spawnSync('c++', ['--version']).status === 0
if (!hasCompiler) console.log("skipped: the kernels' host code: there is no c++")

describe.skipIf(!hasCompiler)("the kernels' host code", () => {
  let built: string
  beforeAll(() => {
    built = mkdtempSync(join(tmpdir(), 'fireq-host-'))
  })
  afterAll(() => rmSync(built, { recursive: true }))

  it.each(readdirSync(folder).filter((name) => name.endsWith('.cpp')))('%s', (name) => {
    const program = join(built, name.replace('.cpp', ''))
    const args = ['-x', 'c++', '-std=c++17', '-O1', '-Wall', '-Werror', join(folder, name), '-o', program]
    const compiled = spawnSync('c++', args, { encoding: 'utf8' })
    expect(compiled.status, compiled.stderr).toBe(0)
    const { status, stdout } = spawnSync(program, { encoding: 'utf8' })
    expect(status, stdout).toBe(0)
  })
})
