import { createHash } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelSource } from '@fireq/formats'
import type { Recipe } from './recipe/recipe.js'
import { version } from './version.js'

/**
 * Names a run: the source as it lies on disk (its config, and name, size and time of its weight files), the recipe, the
 * calibration tokens and the backend they run on, and this library's version. A killed run is only resumed by the same.
 */
export async function identityOf(
  source: ModelSource,
  recipe: Recipe,
  calibration: { readonly backend: string; readonly windows: readonly Int32Array[] } | undefined,
): Promise<string> {
  const hash = createHash('sha256')
  hash.update(JSON.stringify([version, recipe, source.rawConfig, calibration?.backend]))
  for (const name of (await readdir(source.dir)).filter((file) => /\.safetensors(\.index\.json)?$/.test(file)).sort()) {
    const { size, mtimeMs } = await stat(join(source.dir, name))
    hash.update(JSON.stringify([name, size, mtimeMs]))
  }
  for (const window of calibration?.windows ?? []) hash.update(window)
  return hash.digest('hex')
}

/** SHA-256 of calibration windows, to tell in a checkpoint what it was calibrated on. */
export function digestOf(windows: readonly Int32Array[]): string {
  const hash = createHash('sha256')
  for (const window of windows) hash.update(window)
  return hash.digest('hex')
}
