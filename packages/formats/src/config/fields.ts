import { z } from 'zod'

/** An integer in a range, both ends included. */
export function integer(min: number, max: number): z.ZodType<number> {
  const error = `an integer from ${min} to ${max}`
  return z.number({ error }).int({ error }).min(min, { error }).max(max, { error })
}

/** A finite number in a range, both ends included. */
export function number(min: number, max: number): z.ZodType<number> {
  const error = `a number from ${min} to ${max}`
  return z.number({ error }).min(min, { error }).max(max, { error })
}

/** `true` or `false`. */
export function boolean(): z.ZodType<boolean> {
  return z.boolean({ error: 'true or false' })
}

/** One of the given values and no other. */
export function oneOf<const T extends readonly (string | number | boolean | null)[]>(
  ...values: T
): z.ZodType<T[number]> {
  const names = values.map((value) => JSON.stringify(value)).join(' or ')
  return z.literal(values, { error: names })
}

/** A field that may be missing, or null as Python writes it. */
export function optional<T>(schema: z.ZodType<T>): z.ZodType<T | undefined> {
  return schema.nullish().transform((value) => value ?? undefined)
}
