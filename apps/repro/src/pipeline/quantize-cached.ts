import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { type ModelSource, openModel } from '@fireq/formats'
import { quantizeModel, type Recipe } from '@fireq/quantize'
import type { Lab } from '../experiment.js'
import { codeIdentity, hashOf, modelIdentity } from './identity.js'

/**
 * The model that a recipe makes of a source: quantized now, or as an earlier run left it. A run that was interrupted goes
 * on where it was.
 */
export async function quantizeCached(
  source: ModelSource,
  recipe: Recipe,
  calibrationIds: Int32Array,
  { backend, cacheDir, progress, signal }: Lab,
): Promise<ModelSource> {
  const key = hashOf(
    await codeIdentity(),
    await modelIdentity(source.dir),
    JSON.stringify(recipe),
    calibrationIds,
    backend.name,
  )
  const dir = join(cacheDir, 'models', `${recipe.name ?? 'model'}-${key}`)
  if (existsSync(dir)) return await openModel(dir) // appears only once it is whole
  await mkdir(join(cacheDir, 'models'), { recursive: true })
  await quantizeModel(source, recipe, dir, {
    backend,
    calibrationIds,
    signal,
    onProgress: ({ fraction }) => progress.within(fraction),
  })
  return await openModel(dir)
}
