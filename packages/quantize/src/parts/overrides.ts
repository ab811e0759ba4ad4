import { z } from 'zod'
import { boolean, object } from '../recipe/fields.js'
import { definePart } from '../recipe/part.js'
import { tensorPattern } from '../recipe/tensor-pattern.js'
import { weightFields } from './weights.js'

const match = z
  .string({ error: 'a tensor name, a pattern with *, or a /regular expression/' })
  .superRefine((text, context) => {
    try {
      tensorPattern(text)
    } catch (error) {
      context.addIssue({
        code: 'custom',
        message: `expected a regular expression but received ${(error as Error).message}`,
      })
    }
  })

/** Other rounding for the tensors that match, or none at all (`skip`). Where several match, the later one wins. */
export const overrides = definePart({
  key: 'overrides',
  schema: z
    .array(object({ match, skip: boolean().optional(), ...object(weightFields).partial().shape }), {
      error: 'a list',
    })
    .default([]),
})
