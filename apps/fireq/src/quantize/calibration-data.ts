import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Recipe } from '@fireq/quantize'
import { loadTokens, type Reader, type TokenData } from '../data/load-tokens.js'

/** What a model directory may bring along for calibration, in the order of preference. */
const BROUGHT = ['calibration.txt', 'calibration.bin', 'samples.bin']

/**
 * Tokens to calibrate on: of the file given, else of the one the recipe names, else of one in the model directory.
 * Undefined where there is none.
 */
export async function calibrationData(
  given: string | undefined,
  recipe: Recipe,
  model: Reader,
): Promise<TokenData | undefined> {
  const path = given ?? recipe.calibration.data ?? (await broughtBy(model.dir))
  return path === undefined ? undefined : await loadTokens(path, model)
}

async function broughtBy(dir: string): Promise<string | undefined> {
  for (const name of BROUGHT) {
    const path = join(dir, name)
    const isFile = await stat(path).then(
      (info) => info.isFile(),
      () => false,
    )
    if (isFile) return path
  }
  return undefined
}
