import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The stand-in's folder, seen from `dist/` and from `src/subjects/` alike. */
export function standinDir(): string {
  let dir = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(dir, 'models', 'standin', 'config.json'))) {
    const parent = dirname(dir)
    if (parent === dir) throw new Error('The stand-in model is missing: expected models/standin in the repository')
    dir = parent
  }
  return join(dir, 'models', 'standin')
}
