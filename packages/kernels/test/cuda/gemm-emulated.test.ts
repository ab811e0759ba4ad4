import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { emulated } from './support.js'

// gemm_large on the host: kernels/cuda/tests/emulation runs its threads as fibers, with a warp's and a warpgroup's instructions
// and the copy engine emulated, looks for races, and compares with the exact sum itself.

const instances = [
  { tokens: 256, codes: 'kSymmetric', scale: 'kBf16', epilogue: 'kLinear' },
  { tokens: 256, codes: 'kFull', scale: 'kFp32', epilogue: 'kSiluMul' },
  { tokens: 128, codes: 'kFull', scale: 'kBf16', epilogue: 'kLinear' },
  { tokens: 128, codes: 'kSymmetric', scale: 'kFp32', epilogue: 'kSiluMul' },
]

const kernels = fileURLToPath(new URL('../../../../kernels/cuda', import.meta.url))
const hasCompiler =
  spawnSync('c++', ['--version']).status === 0 && process.arch === 'x64' && process.platform === 'linux'
if (!hasCompiler) console.log('skipped: the large GEMM on the host: needs c++ on x64 Linux')

describe.skipIf(!hasCompiler)('the large GEMM on the host', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fireq-gemm-'))
    // Without those that the emulation has its own of.
    for (const name of readdirSync(kernels)) {
      if (/\.(cuh|h)$/.test(name) && !/^(ptx|wgmma|mma)[._]/.test(name))
        copyFileSync(join(kernels, name), join(folder, name))
    }
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  it.each(emulated(instances, 3))('$tokens tokens, $codes, $scale, $epilogue', ({ tokens, codes, scale, epilogue }) => {
    const emulation = join(kernels, 'tests/emulation')
    const program = join(folder, `${tokens}-${codes}-${scale}-${epilogue}`)
    const defines = [
      '-DCLUSTER=2',
      `-DTOKENS=${tokens}`,
      `-DCODES=${codes}`,
      `-DSCALE=${scale}`,
      `-DEPILOGUE=${epilogue}`,
    ]
    const source = join(emulation, 'gemm_large.cpp')
    const args = ['-std=c++20', '-O2', ...defines, `-I${folder}`, `-I${emulation}`, source, '-o', program]
    const compiled = spawnSync('c++', args, { encoding: 'utf8' })
    expect(compiled.status, compiled.stderr).toBe(0)
    const { status, stdout } = spawnSync(program, { encoding: 'utf8' })
    expect(status, stdout).toBe(0)
  })
})
