import { SCALE_SEARCHES, type ScaleSearchName } from '@fireq/formats'
import { z } from 'zod'
import { boolean, object, oneOf, whole } from '../recipe/fields.js'
import { definePart } from '../recipe/part.js'

/** The fields of weight rounding, without defaults: overrides give only those that differ. */
export const weightFields = {
  /** Input features that share a scale. */
  groupSize: whole(2, 65_536),
  /** The type of the group scales. */
  scale: oneOf('bf16', 'e4m3'),
  /** The exponent of the factor 2^i that keeps E4M3 scales out of underflow. */
  tensorScale: z.union([oneOf('auto', 'off'), whole(0, 14)], { error: '"auto", "off" or a whole number from 0 to 14' }),
  /** Emulate kernels that decode through a table of FP8 products. */
  lookupRounding: boolean(),
  /** Scales that vLLM's W4A8 path keeps as they are when it loads the checkpoint. */
  vllmScales: boolean(),
  /** How a group's scale is chosen. */
  search: oneOf(...(Object.keys(SCALE_SEARCHES) as ScaleSearchName[])),
}

/** How weights are rounded, as a recipe says it: without a tensor scale, that depends on the type of the scales. */
export interface WeightFields {
  readonly groupSize: number
  readonly scale: 'bf16' | 'e4m3'
  readonly tensorScale?: 'auto' | 'off' | number
  readonly lookupRounding: boolean
  readonly vllmScales: boolean
  readonly search: ScaleSearchName
}

/** How one tensor is rounded. */
export interface WeightOptions extends WeightFields {
  readonly tensorScale: 'auto' | 'off' | number
}

/** Fills in the tensor scale: it is chosen where there are E4M3 scales, and BF16 scales need none. */
export function completeWeights(fields: WeightFields): WeightOptions {
  return { ...fields, tensorScale: fields.tensorScale ?? (fields.scale === 'e4m3' ? 'auto' : 'off') }
}

/** What is wrong with a combination of fields, or undefined. */
export function weightsProblem({
  groupSize,
  scale,
  tensorScale = 'off',
  vllmScales,
}: WeightFields): string | undefined {
  if (groupSize % 8 !== 0) return `expected a multiple of 8 for groupSize but received ${groupSize}`
  if (scale !== 'e4m3' && tensorScale !== 'off' && tensorScale !== 0) {
    return `expected tensorScale to be "off" with ${scale} scales, which need none, but received ${JSON.stringify(tensorScale)}`
  }
  if (vllmScales && (scale !== 'bf16' || groupSize !== 128)) {
    return `expected bf16 scales of groups of 128 with vllmScales but received ${scale} scales of groups of ${groupSize}`
  }
  return undefined
}

/** INT4 groups: how the weights of the decoder layers' linears are rounded. */
export const weights = definePart({
  key: 'weights',
  schema: object(weightFields)
    .partial()
    .default({})
    .transform((given, context): WeightFields => {
      const fields = {
        groupSize: 128,
        scale: 'bf16' as const,
        lookupRounding: false,
        vllmScales: false,
        search: 'absmax' as const,
        ...given,
      }
      const message = weightsProblem(fields)
      if (message !== undefined) context.addIssue({ code: 'custom', message })
      return fields
    }),
})
