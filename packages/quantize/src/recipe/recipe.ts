import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { RecipeError } from '../errors.js'
import { parts } from '../parts/index.js'
import { object } from './fields.js'
import type { RecipePart } from './part.js'

type Parts = (typeof parts)[number]
type Values = { readonly [P in Parts as P['key']]: z.output<P['schema']> }
type Inputs = { readonly [P in Parts as P['key']]?: z.input<P['schema']> }

/** A recipe with every default filled in. Plain data: `JSON.stringify` of it is a recipe file. */
export interface Recipe extends Values {
  readonly name?: string
  readonly description?: string
}

/** A recipe as people write it: whatever is left out takes its default. */
export interface RecipeInput extends Inputs {
  readonly name?: string
  readonly description?: string
}

const text = z.string({ error: 'a text' }).optional()
const recipeSchema = object({
  name: text,
  description: text,
  ...Object.fromEntries(parts.map(({ key, schema }) => [key, schema])),
})

/**
 * Checks a recipe and fills in its defaults.
 * @param where the file's name, for errors
 * @throws RecipeError naming every field that is wrong
 */
export function parseRecipe(json: unknown, where = 'recipe'): Recipe {
  const result = recipeSchema.safeParse(json)
  if (result.success) return dropUndefined(result.data) as unknown as Recipe
  const lines = result.error.issues.map((issue) => describe(issue, json))
  throw new RecipeError([`${where} can't be used:`, ...lines].join(lines.length > 1 ? '\n  ' : ' '))
}

/** Reads a recipe's JSON file. @throws RecipeError where it can't be read, isn't JSON, or isn't a recipe */
export async function readRecipe(path: string): Promise<Recipe> {
  const json = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new RecipeError(`${path} can't be read: ${cause.message}`, { cause })
  })
  try {
    return parseRecipe(JSON.parse(json), path)
  } catch (error) {
    if (error instanceof RecipeError) throw error
    throw new RecipeError(`${path} isn't JSON: ${(error as Error).message}`, { cause: error })
  }
}

/** Every part with its value in a recipe, the types of both forgotten: for code that treats all parts alike. */
export function partsOf(recipe: Recipe): { part: RecipePart<string, z.ZodType>; value: unknown }[] {
  return parts.map((part) => ({
    part: part as unknown as RecipePart<string, z.ZodType>,
    value: recipe[part.key],
  }))
}

function describe(issue: z.core.$ZodIssue, json: unknown): string {
  const at = issue.path
    .map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`))
    .join('')
    .slice(1)
  const place = at === '' ? '' : `${at}: `
  if (issue.code === 'unrecognized_keys') {
    return `${place}there is no field ${issue.keys.map((key) => JSON.stringify(key)).join(', ')}`
  }
  if (issue.code === 'custom') return `${place}${issue.message}`
  return `${place}expected ${issue.message} but received ${JSON.stringify(valueAt(json, issue.path)) ?? 'nothing'}`
}

function valueAt(json: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json)
}

/** Without fields that are switched off, so that equal recipes are equal JSON. */
function dropUndefined(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(dropUndefined)
  if (value === null || typeof value !== 'object') return value
  const kept = Object.entries(value).filter(([, inner]) => inner !== undefined)
  return Object.fromEntries(kept.map(([key, inner]) => [key, dropUndefined(inner)]))
}
