import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
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
      '--system-node',
      '--out',
      join(folder, 'gpu'),
    ])
    expect(status, `${stdout}${stderr}`).toBe(0)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const run = (...args: string[]) => {
    const env = { ...process.env, NODE_OPTIONS: '' }
    return spawnSync('sh', [join(folder, 'gpu/run.sh'), ...args], { cwd: tmpdir(), encoding: 'utf8', env })
  }

  it.each(['test', 'bench', 'attention'])('%s says that there is no GPU, and why', (what) => {
    const { status, stdout, stderr } = run(what)
    expect(status, stderr).toBe(0)
    expect(stdout).toMatch(/^skipped: no GPU: no NVIDIA driver: libcuda\.so\.1/m)
  })

  it('refuses what it does not know', () => {
    const { status, stderr } = run('tset')
    expect(status).toBe(2)
    expect(stderr).toContain("expected test, bench, attention or sanitize but received 'tset'")
  })
})
