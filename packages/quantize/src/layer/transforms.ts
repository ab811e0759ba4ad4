import type { LayerObservers } from '@fireq/calibration'
import type { LlamaConfig } from '@fireq/formats'
import type { LayerTransform } from '../recipe/part.js'
import { partsOf, type Recipe } from '../recipe/recipe.js'

/** What the recipe's parts do to a layer, in order. */
export function layerTransforms(recipe: Recipe, config: LlamaConfig, layer: number): LayerTransform[] {
  return partsOf(recipe).flatMap(({ part, value }) => part.transform?.(value, { config, layer }) ?? [])
}

/** The observers of all transforms together. */
export function observersOf(transforms: readonly LayerTransform[]): LayerObservers {
  const all: Record<string, LayerObservers[keyof LayerObservers]> = {}
  for (const { observers = {} } of transforms) {
    for (const [tap, watching] of Object.entries(observers)) all[tap] = [...(all[tap] ?? []), ...watching]
  }
  return all
}

/** Whether any layer must be seen on calibration tokens. */
export function needsCalibration(recipe: Recipe, config: LlamaConfig): boolean {
  return Array.from({ length: config.numHiddenLayers }, (_, layer) => layerTransforms(recipe, config, layer))
    .flat()
    .some(({ observers }) => observers !== undefined)
}
