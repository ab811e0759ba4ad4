import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../../../', import.meta.url))
const filesUnder = (folder: string, pattern: RegExp): string[] =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
        .filter((file) => pattern.test(file))
        .map((file) => join(root, folder, file))
    : []

describe('native sources', () => {
  it('keep Node-API out of the kernels', () => {
    const files = filesUnder('kernels/cpu', /\.(h|cc)$/)
    expect(files.length).toBeGreaterThan(20)
    for (const file of files) expect(readFileSync(file, 'utf8'), file).not.toMatch(/napi|node_api|binding\//i)
  })

  it('compiled for one instruction set leave nothing that others might run: no inline functions, no initializers', (context) => {
    const objects = filesUnder('build/native', /fireq_Avx(2|512)\.dir.*\.o$/)
    const nm = spawnSync('nm', ['--version'])
    if (objects.length === 0 || nm.status !== 0) return context.skip('no object files or no nm here')
    const { stdout } = spawnSync('nm', ['-C', '--defined-only', ...objects], { encoding: 'utf8', maxBuffer: 1 << 28 })
    const weak = stdout
      .split('\n')
      .filter((line) => / [WVu] /.test(line) && !/ fireq::(Avx2|Avx512|Avx512Emulated)::/.test(line))
    const shared = weak.map((line) => line.replace(/^.*? [WVu] /, '')).filter((name) => !harmless(name))
    expect([...new Set(shared)]).toEqual([])
    expect(stdout.split('\n').filter((line) => INITIALIZER.test(line))).toEqual([])
  })
})

/** What runs while the addon is loaded, on any machine. */
const INITIALIZER = /_GLOBAL__sub_I|__static_initialization/

/** Functions that hold no vector instructions whatever they are compiled for. */
function harmless(name: string): boolean {
  return /^(void )?fireq::(Pool::parallelFor|OpContext::parallelFor)</.test(name) || name.startsWith('DW.ref')
}
