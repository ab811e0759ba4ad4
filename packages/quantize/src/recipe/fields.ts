import { z } from 'zod'

/** One of the given words and no other. */
export function oneOf<const T extends string>(...words: readonly T[]): z.ZodType<T> {
  return z.literal(words, { error: words.map((word) => JSON.stringify(word)).join(' or ') })
}

/** A whole number in a range, both ends included. */
export function whole(min: number, max: number): z.ZodType<number> {
  const error = `a whole number from ${min} to ${max}`
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error })
}

/** A positive number. */
export function positive(): z.ZodType<number> {
  const error = 'a positive number'
  return z.number({ error }).positive({ error })
}

export function boolean(): z.ZodType<boolean> {
  return z.boolean({ error: 'true or false' })
}

/** An object with these fields and no other. */
export function object<Shape extends z.ZodRawShape>(shape: Shape): z.ZodObject<Shape, z.core.$strict> {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? undefined : 'an object'),
  })
}

/** A part of the method that can be switched off: left out, or `"off"`. */
export function optional<T>(schema: z.ZodType<T>): z.ZodOptional<z.ZodType<T | undefined>> {
  return z.preprocess((value) => (value === 'off' ? undefined : value), schema.optional()).optional()
}
