import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cudaStatus } from '../../src/cuda/status.js'
import { hasKernels } from './support.js'

const script = fileURLToPath(new URL('../../../../scripts/gpu-bundle.mjs', import.meta.url))

// The bundle without node, which takes a minute to compress. Without a GPU its tests and benchmarks must say so; with one
// gpu.test.ts runs the same tests.
describe.skipIf(!hasKernels || cudaStatus().usable)('the bundle for a machine with only a driver', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fireq-bundle-'))
    const { status, stdout, stderr } = spawnSync(process.execPath, [
      script,
      '--no-build', // of what other tests are using
      '--system-node',
      '--out',
      join(folder, 'gpu'),
    ])
    expect(status, `${stdout}${stderr}`).toBe(0)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const run = (what: string, args: readonly string[] = [], more: Readonly<Record<string, string>> = {}) => {
    const env = { ...process.env, NODE_OPTIONS: '', ...more }
    return spawnSync('sh', [join(folder, 'gpu/run.sh'), what, ...args], { cwd: tmpdir(), encoding: 'utf8', env })
  }

  it.each(['test', 'bench', 'attention'])('%s says that there is no GPU, and why', (what) => {
    const { status, stdout, stderr } = run(what)
    expect(status, stderr).toBe(0)
    expect(stdout).toMatch(/^skipped: no GPU: no NVIDIA driver: libcuda\.so\.1/m)
  })

  it('runs the small tests under each tool of compute-sanitizer, and tells which are not content', () => {
    const pretended = join(folder, 'sanitizer')
    const script = `#!/bin/sh\necho "$@" >>"$0.log"\ncase "$*" in *racecheck*) exit 3 ;; esac\n`
    writeFileSync(pretended, script, { mode: 0o755 })
    const { status, stderr } = run('sanitize', ['small: one', '--num-cuda-barriers', '64'], {
      COMPUTE_SANITIZER: pretended,
    })
    expect(status).toBe(3)
    expect(stderr).toBe('not clean: racecheck\n')
    const calls = readFileSync(`${pretended}.log`, 'utf8').trim().split('\n')
    expect(calls[0]).toBe('--version')
    expect(calls.slice(1).map((call) => call.split(' ')[1])).toEqual([
      'memcheck',
      'racecheck',
      'initcheck',
      'synccheck',
    ])
    for (const call of calls.slice(1)) {
      expect(call).toContain(' --num-cuda-barriers 64 ')
      expect(call).toContain(' --test-name-pattern=small: one ')
    }
  })

  it('refuses what it does not know', () => {
    const { status, stderr } = run('tset')
    expect(status).toBe(2)
    expect(stderr).toContain("expected test, bench, attention or sanitize but received 'tset'")
  })
})
