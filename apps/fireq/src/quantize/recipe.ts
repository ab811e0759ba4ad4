import { stat } from 'node:fs/promises'
import { loadRecipe, parseRecipe, type Recipe, recipeNames } from '@fireq/quantize'
import { UsageError } from '../errors.js'
import type { Setting } from './settings.js'

/** A built-in recipe or a file, with settings applied. */
export async function recipeOf(nameOrPath: string, settings: readonly Setting[]): Promise<Recipe> {
  if (!recipeNames.includes(nameOrPath) && !(await isFile(nameOrPath))) {
    const names = recipeNames.join(', ')
    throw new UsageError(`Expected a recipe among ${names}, or a JSON file, but received ${JSON.stringify(nameOrPath)}`)
  }
  const recipe = await loadRecipe(nameOrPath)
  if (settings.length === 0) return recipe
  const changed: unknown = settings.reduce(applySetting, structuredClone(recipe) as unknown)
  const where = `recipe ${nameOrPath} with ${settings.map(({ text }) => text).join(' ')}`
  return parseRecipe(changed, where)
}

function applySetting(recipe: unknown, { text, path, value }: Setting): unknown {
  const [last, ...parents] = [...path].reverse()
  let at = recipe as Record<string, unknown>
  for (const key of parents.reverse()) {
    if (at[key] === undefined || at[key] === 'off') at[key] = {}
    if (typeof at[key] !== 'object' || at[key] === null) {
      throw new UsageError(`--set ${text}: Expected an object at ${key} but the recipe has ${JSON.stringify(at[key])}`)
    }
    at = at[key] as Record<string, unknown>
  }
  at[last] = value
  return recipe
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (info) => info.isFile(),
    () => false,
  )
}
