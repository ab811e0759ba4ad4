/** A model directory whose files don't fit together, or that can't be written. The message starts with the path. */
export class CheckpointError extends Error {
  /** The file or directory the error is about. */
  readonly path: string

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super(`${path}: ${problem}`, options)
    this.name = 'CheckpointError'
    this.path = path
  }
}
