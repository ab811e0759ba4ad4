import { KeyAccumulator } from '@fireq/calibration'
import { type SmoothingRecipe, smoothLayer } from '@fireq/smoothing'
import { z } from 'zod'
import { object, oneOf, optional, positive, whole } from '../recipe/fields.js'
import { definePart } from '../recipe/part.js'

const nonzero = z.number({ error: 'a number other than 0' }).refine((v) => v !== 0, { error: 'a number other than 0' })
const scalingType = z.literal([0, 1, 2], { error: '0 (constant), 1 (by the maximum) or 2 (by the mean)' })
const channelScaling = optional(object({ type: scalingType, constant: positive() }))

/** FireQ's smoothing (arXiv 2505.20839): scales folded into weights, and post-RoPE scales applied at run time. */
export const smoothing = definePart({
  key: 'smoothing',
  schema: optional(
    object({
      channelWise: optional(
        object({ qkv: channelScaling, o: channelScaling, gateUp: channelScaling, down: channelScaling }),
      ),
      valueMultiplier: optional(nonzero),
      preRope: optional(object({ alpha: positive() })),
      postRope: optional(
        object({ beta: positive(), topK: whole(1, 65_536), partners: oneOf('own', 'tied').default('own') }),
      ),
    }),
  ).transform((given = {}): SmoothingRecipe => given),

  transform(recipe, { config }) {
    if (Object.values(recipe).every((part) => part === undefined)) return undefined
    const { numKeyValueHeads, headDim } = config
    const needsKeys = recipe.preRope !== undefined || recipe.postRope !== undefined
    const keys = needsKeys ? new KeyAccumulator(numKeyValueHeads, headDim) : undefined
    return {
      ...(keys && { observers: { keys: [keys] } }),
      apply(layer) {
        const { weights, plan, keyScale } = smoothLayer(layer.weights, config, keys?.summary(), recipe)
        return { weights, plan: [...layer.plan, ...plan], keyScale: keyScale ?? layer.keyScale }
      },
    }
  },

  problems({ postRope }, { headDim }) {
    if (postRope === undefined || postRope.topK <= headDim) return []
    return [`Expected smoothing.postRope.topK of at most headDim ${headDim} but received ${postRope.topK}`]
  },
})
