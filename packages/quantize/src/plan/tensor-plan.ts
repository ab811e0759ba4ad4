import { bytesPerElement, type ModelSource, type ModelTensorGroup, modelTensors } from '@fireq/formats'
import { layerTransforms } from '../layer/transforms.js'
import type { Recipe } from '../recipe/recipe.js'
import { type WeightChoice, weightChoice } from './weight-choice.js'

/** What becomes of one tensor. */
export interface TensorPlan {
  readonly name: string
  readonly shape: readonly number[]
  /** The type it has, and the type it gets. */
  readonly from: string
  readonly to: string
  /** Bytes of its arrays, before and after. */
  readonly bytesBefore: number
  readonly bytesAfter: number
  /** Bits per value afterwards, scales included. */
  readonly bits: number
  readonly choice: WeightChoice
}

/** The number of a group's layer; undefined for the embedding and the head. */
export function layerOf({ key }: Pick<ModelTensorGroup, 'key'>): number | undefined {
  const [, digits] = /^layer-(\d+)$/.exec(key) ?? []
  return digits === undefined ? undefined : Number(digits)
}

/**
 * What becomes of every tensor of the model, in the order of writing. In a layer that a transform changes, a matrix that
 * isn't rounded keeps its type; norms and biases take FP32: it costs nothing, and the scales folded into them stay exact.
 */
export function planTensors(source: ModelSource, recipe: Recipe): TensorPlan[] {
  return modelTensors(source.config).flatMap((group) => {
    const layer = layerOf(group)
    const transformed = layer !== undefined && layerTransforms(recipe, source.config, layer).length > 0
    return group.tensors.map(({ name, shape, quantizable }) => {
      const from = source.dtype(name)
      const values = shape.reduce((product, dim) => product * dim, 1)
      const choice = quantizable ? weightChoice(recipe, name) : 'skip'
      const kept = transformed && shape.length === 1 ? 'f32' : from
      const bytesAfter = choice === 'skip' ? values * bytesOf(kept) : int4Bytes(values, choice.groupSize)
      return {
        name,
        shape,
        from,
        to: choice === 'skip' ? kept : describe(choice),
        bytesBefore: values * bytesOf(from),
        bytesAfter,
        bits: (8 * bytesAfter) / values,
        choice,
      }
    })
  })
}

function describe(choice: Exclude<WeightChoice, 'skip'>): string {
  const { groupSize, scale, tensorScale, lookupRounding, vllmScales } = choice
  const scaled =
    tensorScale === 'off' || tensorScale === 0 ? '' : tensorScale === 'auto' ? ' ×2^i' : ` ×2^${tensorScale}`
  return `int4 g${groupSize} ${scale}${scaled}${lookupRounding ? ' look-up' : ''}${vllmScales ? ' for vLLM' : ''}`
}

/** Codes, BF16 scales (E4M3 ones are stored as BF16, too, for other engines to read), and the shape. */
function int4Bytes(values: number, groupSize: number): number {
  return values / 2 + (2 * values) / groupSize + 16
}

function bytesOf(dtype: string): number {
  return dtype === 'i4g' ? 0.5 : bytesPerElement(dtype as 'f32')
}
