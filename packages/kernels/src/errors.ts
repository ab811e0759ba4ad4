/** A program that is wrong whatever it is fed: unknown buffer, shapes that don't fit, a type an op can't take. */
export class ProgramError extends Error {
  override readonly name = 'ProgramError'
}

/** A run that can't go on: a feed of the wrong length, a disposed handle, memory that isn't there. */
export class BackendError extends Error {
  override readonly name = 'BackendError'
}
