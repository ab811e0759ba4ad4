import fireqJson from '../../recipes/fireq.json' with { type: 'json' }
import fireqLlama3Json from '../../recipes/fireq-llama3-8b.json' with { type: 'json' }
import fireqVllmJson from '../../recipes/fireq-vllm.json' with { type: 'json' }
import rtnJson from '../../recipes/rtn.json' with { type: 'json' }
import { parseRecipe, type Recipe, readRecipe } from './recipe.js'

/** The files of `recipes/`, by name. */
const builtin: Readonly<Record<string, unknown>> = {
  rtn: rtnJson,
  fireq: fireqJson,
  'fireq-llama3-8b': fireqLlama3Json,
  'fireq-vllm': fireqVllmJson,
}

/** Names that {@link loadRecipe} knows without a file. */
export const recipeNames: readonly string[] = Object.keys(builtin)

/** A built-in recipe by its name, or the recipe of a JSON file. @throws RecipeError */
export async function loadRecipe(nameOrPath: string): Promise<Recipe> {
  if (!Object.hasOwn(builtin, nameOrPath)) return await readRecipe(nameOrPath)
  return parseRecipe(builtin[nameOrPath], `recipe ${nameOrPath}`)
}
