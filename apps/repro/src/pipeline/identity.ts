import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** SHA-256, the first 16 digits: names of cached things. */
export function hashOf(...parts: readonly (string | Uint8Array | Int32Array)[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(typeof part === 'string' ? `${part.length}:${part}` : part)
  return hash.digest('hex').slice(0, 16)
}

/** A model directory as it lies on disk: name, size and time of its weights, and its config. */
export async function modelIdentity(dir: string): Promise<string> {
  const parts: string[] = [await readFile(join(dir, 'config.json'), 'utf8')]
  for (const name of (await readdir(dir)).filter((file) => file.includes('.safetensors')).sort()) {
    const { size, mtimeMs } = await stat(join(dir, name))
    parts.push(JSON.stringify([name, size, mtimeMs]))
  }
  return hashOf(...parts)
}

const PACKAGES = ['formats', 'kernels', 'model', 'calibration', 'smoothing', 'quantize']

let code: Promise<string> | undefined

/** The code that makes the numbers: the content of every package's built files. A commit would miss local changes. */
export function codeIdentity(): Promise<string> {
  code ??= readCode()
  return code
}

async function readCode(): Promise<string> {
  const entries = PACKAGES.map((name) => dirname(fileURLToPath(import.meta.resolve(`@fireq/${name}`))))
  const addons = join(entries[PACKAGES.indexOf('kernels')], '..', 'npm')
  const files = await Promise.all([...entries, addons].map(codeFiles))
  return hashOf(...(await Promise.all(files.flat().map((file) => readFile(file)))))
}

async function codeFiles(dir: string): Promise<string[]> {
  const files = (await readdir(dir, { recursive: true })).filter((file) => /\.(js|ts|node)$/.test(file))
  return files
    .filter((file) => !file.endsWith('.d.ts') && !file.includes('node_modules'))
    .sort()
    .map((file) => join(dir, file))
}
