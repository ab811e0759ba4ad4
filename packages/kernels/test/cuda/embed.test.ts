import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadAddon } from '../../src/native/load.js'

const script = fileURLToPath(new URL('../../../../kernels/cuda/embed.cmake', import.meta.url))
const nvcc = ['nvcc', '/usr/local/cuda/bin/nvcc'].find((name) => spawnSync(name, ['--version']).status === 0)
const cmake = spawnSync('cmake', ['--version']).status === 0
const missing = nvcc === undefined ? 'nvcc' : cmake ? undefined : 'CMake'
if (missing !== undefined) console.log(`skipped: the build's check on kernels: ${missing} wasn't found`)

const spilling = `extern "C" __global__ void __launch_bounds__(1024) spilling(float* x) {
  float v[128];
  for (int i = 0; i < 128; i++) v[i] = x[i * 1024 + threadIdx.x];
  for (int i = 0; i < 128; i++) for (int j = 0; j < 128; j++) v[j] = v[j] * v[i] + v[(j + 1) % 128];
  for (int i = 0; i < 128; i++) x[i * 1024 + threadIdx.x] = v[i];
}`
const indexed = `extern "C" __global__ void indexed(float* x, const int* at) {
  float v[64] = {};
  for (int i = 0; i < 64; i++) v[at[i] & 63] += x[i];
  for (int i = 0; i < 64; i++) x[i] = v[at[i + threadIdx.x] & 63];
}`
const fine = `extern "C" __global__ void fine(float* x) { x[threadIdx.x] *= 2; }`

describe.skipIf(missing !== undefined)("the build's check on kernels", () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fireq-embed-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const build = (name: string, source: string) => {
    writeFileSync(join(folder, `${name}.cu`), source)
    const file = (extension: string): string => join(folder, `${name}.${extension}`)
    const settings = { NVCC: nvcc, SOURCE: file('cu'), CUBIN: file('cubin'), EMBED: file('cc') }
    const args = Object.entries(settings).flatMap(([key, value]) => ['-D', `${key}=${value}`])
    return spawnSync('cmake', [...args, '-P', script], { encoding: 'utf8' })
  }

  it('fails on spilled registers, and names the kernel', () => {
    const { status, stderr } = build('spilling', spilling)
    expect(status).not.toBe(0)
    expect(stderr).toMatch(/kernels of .*spilling\.cu lose performance/)
    expect(stderr).toMatch(/spilling: \d+ bytes stack frame, [1-9]\d* bytes spill stores/)
  })

  it('fails on local memory', () => {
    const { status, stderr } = build('indexed', indexed)
    expect(status).not.toBe(0)
    expect(stderr).toMatch(/indexed: 256 bytes stack frame, 0 bytes spill stores/)
  })

  it('fails on what does not compile', () => {
    const { status, stderr } = build('broken', 'extern "C" __global__ void broken() { undeclared(); }')
    expect(status).not.toBe(0)
    expect(stderr).toContain('undeclared')
  })

  it('embeds what is fine, with its registers', () => {
    expect(build('fine', fine).status).toBe(0)
    expect(readFileSync(join(folder, 'fine.cc'), 'utf8')).toMatch(/\{"fine", \d+\},/)
    expect(readFileSync(join(folder, 'fine.cubin')).subarray(0, 4).toString('latin1')).toBe('\x7fELF')
  })
})

const { addon } = loadAddon()
it.skipIf(addon === undefined || addon.cudaKernels().length === 0)('every kernel of this build is listed', () => {
  const names = addon!.cudaKernels().map(({ name }) => name)
  for (const vectors of [1, 2, 4]) {
    expect(names).toContain(`quantize_tokens_${vectors}`)
    expect(names).toContain(`rms_norm_quantize_${vectors}`)
  }
  expect(new Set(names).size).toBe(names.length)
})
