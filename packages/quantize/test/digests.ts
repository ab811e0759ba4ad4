import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** SHA-256 of every file of a directory, by name. */
export async function digests(dir: string): Promise<Record<string, string>> {
  const files = (await readdir(dir)).sort()
  const hash = async (name: string) =>
    createHash('sha256')
      .update(await readFile(join(dir, name)))
      .digest('hex')
  return Object.fromEntries(await Promise.all(files.map(async (name) => [name, await hash(name)])))
}
