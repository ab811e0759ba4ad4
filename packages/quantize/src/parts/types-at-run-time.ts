import type { KvFormat } from '@fireq/formats'
import { z } from 'zod'
import { boolean, object, oneOf } from '../recipe/fields.js'
import { definePart } from '../recipe/part.js'

/** Inputs of the quantized linears: FP8 with a scale per token, or the model's type. */
export const activations = definePart({
  key: 'activations',
  schema: oneOf('e4m3', 'none').default('e4m3'),
  metadata: (activations) => ({ activations }),
})

/** Queries when they meet the cached keys: FP8 with a scale per token and head, or the model's type. */
export const queries = definePart({
  key: 'queries',
  schema: oneOf('e4m3', 'none').default('none'),
  metadata: (queries) => ({ queries }),
})

/** Softmax numerators when they meet the cached values. */
export const probabilities = definePart({
  key: 'probabilities',
  schema: oneOf('e4m3', 'f32').default('f32'),
  metadata: (probabilities) => ({ probabilities }),
})

const kvFormat: z.ZodType<KvFormat> = z.discriminatedUnion(
  'dtype',
  [
    object({ dtype: z.literal('f32') }),
    object({ dtype: z.literal('bf16') }),
    object({ dtype: z.literal('int4'), symmetric: boolean(), scale: oneOf('bf16', 'e4m3') }),
  ],
  { error: '{"dtype": "bf16"}, {"dtype": "f32"} or {"dtype": "int4", "symmetric": …, "scale": …}' },
)

/** The KV cache. */
export const kv = definePart({
  key: 'kv',
  schema: kvFormat.default({ dtype: 'bf16' }),
  metadata: (kv) => ({ kv }),
})
