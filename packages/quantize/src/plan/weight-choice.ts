import type { LlamaConfig } from '@fireq/formats'
import { type LinearSpec, modelFamily } from '@fireq/model'
import { completeWeights, type WeightFields, type WeightOptions, weightsProblem } from '../parts/weights.js'
import type { Recipe } from '../recipe/recipe.js'
import { tensorPattern } from '../recipe/tensor-pattern.js'
import { groupByLayer, joinLayers } from './layer-names.js'

/** How a recipe rounds one tensor: by which options, or not at all. */
export type WeightChoice = WeightOptions | 'skip'

/** The recipe's choice for a tensor: its `weights`, then every override that matches, the later over the earlier. */
export function weightChoice(recipe: Recipe, tensor: string): WeightChoice {
  let given: WeightFields = recipe.weights
  let skipped = false
  for (const { match, skip, ...fields } of recipe.overrides) {
    if (!tensorPattern(match).test(tensor)) continue
    skipped = skip ?? skipped
    const scaleChanges = fields.scale !== undefined && fields.scale !== given.scale
    // A tensor scale belongs to the scales it was written beside.
    given = { ...given, ...(scaleChanges && { tensorScale: undefined }), ...defined(fields) }
  }
  return skipped ? 'skip' : completeWeights(given)
}

/** What keeps the choices for the tensors of this model from being used, a sentence each. */
export function choiceProblems(config: LlamaConfig, recipe: Recipe): string[] {
  const layers = Array.from({ length: config.numHiddenLayers }, (_, layer) => layerProblems(config, recipe, layer))
  return groupByLayer(layers.flat(), (problem) => problem).map(joinLayers)
}

function layerProblems(config: LlamaConfig, recipe: Recipe, layer: number): string[] {
  const problems: string[] = []
  const linears = Object.values(modelFamily(config.modelType).layerLinears(config, layer)) as LinearSpec[]
  for (const { shape, parts } of linears) {
    const choices = parts.map((part) => weightChoice(recipe, part))
    choices.forEach((choice, i) => {
      if (choice === 'skip') return
      const problem = weightsProblem(choice)
      if (problem !== undefined) problems.push(`${parts[i]}: ${problem}`)
      if (shape[1] % choice.groupSize !== 0) {
        problems.push(`${parts[i]}: expected a groupSize that divides K=${shape[1]} but received ${choice.groupSize}`)
      }
    })
    const [first, ...others] = choices.map(together)
    const other = others.findIndex((layout) => layout !== first)
    if (other >= 0) {
      problems.push(
        `${parts[0]} and ${parts[other + 1]} are one matrix at run time: expected equal scale, groupSize, lookupRounding and skip but received ${first} and ${others[other]}`,
      )
    }
  }
  return problems
}

/** What must agree among tensors that are joined to one matrix. */
function together(choice: WeightChoice): string {
  if (choice === 'skip') return 'skip'
  const { groupSize, scale, lookupRounding } = choice
  return JSON.stringify({ groupSize, scale, lookupRounding })
}

function defined<T extends object>(fields: T): Partial<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<T>
}
