import { stat } from 'node:fs/promises'
import { loadRecipe, parseRecipe, type Recipe, recipeNames } from '@fireq/quantize'
import { InvalidArgumentError } from 'commander'
import { UsageError } from '../errors.js'

/** One `--set`: a path into the recipe, and what to put there. */
export interface Setting {
  readonly text: string
  readonly path: readonly string[]
  readonly value: unknown
}

/** Parses `weights.groupSize=64`: the value is JSON where it can be, and else the text itself. */
export function parseSetting(text: string, before: readonly Setting[] = []): readonly Setting[] {
  const [, key, value] = /^([\w.]+)=(.*)$/s.exec(text) ?? []
  const path = key?.split('.') ?? []
  if (value === undefined || path.some((name) => name === '' || name === '__proto__')) {
    throw new InvalidArgumentError('Expected key=value, as in weights.groupSize=64.')
  }
  return [...before, { text, path, value: jsonOr(value) }]
}

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

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

async function isFile(path: string): Promise<boolean> {
  return await stat(path).then(
    (info) => info.isFile(),
    () => false,
  )
}
