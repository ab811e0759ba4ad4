import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageFolders, root, spawn } from './support.js'

const folder = mkdtempSync(join(tmpdir(), 'fireq-pack-'))
const tarballs = new Map<string, string>()

beforeAll(async () => {
  for (const path of packageFolders) {
    const { code, stdout, stderr } = await spawn('npm', ['pack', '--json', '--pack-destination', folder], {
      cwd: join(root, path),
    })
    expect(code, stderr).toBe(0)
    const [packed] = JSON.parse(stdout) as { name: string; filename: string }[]
    tarballs.set(packed!.name, join(folder, packed!.filename))
  }
})

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe.each(packageFolders)('%s', (path) => {
  const { name } = JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8')) as { name: string }

  it('has an exports map that publint accepts', async () => {
    const { code, stdout, stderr } = await spawn('publint', [tarballs.get(name)!, '--strict'])
    expect(code, stdout + stderr).toBe(0)
  })

  it('has types that every resolver finds', async () => {
    const { code, stdout, stderr } = await spawn('attw', [tarballs.get(name)!, '--profile', 'esm-only', '--no-emoji'])
    expect(code, stdout + stderr).toBe(0)
  })
})

describe('the packed packages, installed without scripts and without the native addon', () => {
  it('work in an empty directory, and say that they fall back', async () => {
    writeFileSync(join(folder, 'package.json'), '{ "private": true, "type": "module" }')
    const install = await spawn(
      'npm',
      [
        'install',
        '--ignore-scripts',
        '--omit=optional',
        '--prefer-offline',
        '--no-audit',
        '--no-fund',
        ...tarballs.values(),
      ],
      { cwd: folder },
    )
    expect(install.code, install.stderr).toBe(0)
    const imports = [...tarballs.keys()].map((name) => `await import('${name}')`).join('\n')
    writeFileSync(
      join(folder, 'use.mjs'),
      `${imports}
      const { createBackend } = await import('@fireq/kernels')
      const backend = await createBackend('auto')
      console.log(backend.name)`,
    )
    const { code, stdout, stderr } = await spawn('node', ['use.mjs'], { cwd: folder })
    expect(code, stderr).toBe(0)
    expect(stdout.trim()).toBe('reference')
    expect(stderr).toMatch(/reference/)
  }, 180_000)
})
