import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { packageFolders, root, spawn } from './support.js'

const folder = mkdtempSync(join(tmpdir(), 'fireq-pack-'))
const tarballs = new Map<string, string>()

beforeAll(async () => {
  for (const path of packageFolders) tarballs.set(nameOf(path), await pack(path))
})

const nameOf = (path: string): string => JSON.parse(readFileSync(join(root, path, 'package.json'), 'utf8')).name

/** Packs a package as npm publishes it; gives the tarball's path. */
async function pack(path: string): Promise<string> {
  const { code, stdout, stderr } = await spawn('npm', ['pack', '--json', '--pack-destination', folder], {
    cwd: join(root, path),
  })
  expect(code, stderr).toBe(0)
  const [packed] = JSON.parse(stdout) as { filename: string }[]
  return join(folder, packed!.filename)
}

afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe.each(packageFolders)('%s', (path) => {
  const name = nameOf(path)

  it('has an exports map that publint accepts', async () => {
    const { code, stdout, stderr } = await spawn('publint', [tarballs.get(name)!, '--strict'])
    expect(code, stdout + stderr).toBe(0)
  })

  it('has types that every resolver finds', async () => {
    const { code, stdout, stderr } = await spawn('attw', [tarballs.get(name)!, '--profile', 'esm-only', '--no-emoji'])
    expect(code, stdout + stderr).toBe(0)
  })
})

const addon = 'packages/kernels/npm/linux-x64-gnu'
const hasAddon = existsSync(join(root, addon, 'fireq.node'))

/** Installs tarballs in a new directory without running scripts, imports them all, and names the automatic backend. */
async function useInEmptyDirectory(files: readonly string[]) {
  const cwd = mkdtempSync(join(folder, 'use-'))
  writeFileSync(join(cwd, 'package.json'), '{ "private": true, "type": "module" }')
  const options = ['--ignore-scripts', '--omit=optional', '--prefer-offline', '--no-audit', '--no-fund']
  const install = await spawn('npm', ['install', ...options, ...files], { cwd })
  expect(install.code, install.stderr).toBe(0)
  const imports = [...tarballs.keys()].map((name) => `await import('${name}')`)
  const use = `const { createBackend } = await import('@fireq/kernels')
  console.log((await createBackend('auto')).name)`
  writeFileSync(join(cwd, 'use.mjs'), [...imports, use].join('\n'))
  const result = await spawn('node', ['use.mjs'], { cwd })
  expect(result.code, result.stderr).toBe(0)
  return result
}

describe('the packed packages, installed in an empty directory without scripts', () => {
  it('work on the TypeScript backend without the native addon, and say so', async () => {
    const { stdout, stderr } = await useInEmptyDirectory([...tarballs.values()])
    expect(stdout.trim()).toBe('reference')
    expect(stderr).toMatch(/reference/)
  }, 180_000)

  it.skipIf(!hasAddon)(
    'work on the native backend with the platform package, and say nothing',
    async () => {
      const { stdout, stderr } = await useInEmptyDirectory([...tarballs.values(), await pack(addon)])
      expect(stdout.trim()).toBe('cpu')
      expect(stderr).toBe('')
    },
    180_000,
  )
})
