/** A recipe that can't be used: the message names the file and every field that is wrong. */
export class RecipeError extends Error {
  override readonly name = 'RecipeError'
}

/** A quantization that can't start or go on; the message says why, and what to do about it. */
export class QuantizeError extends Error {
  override readonly name = 'QuantizeError'
}
