/** A safetensors file, or a set of them, that is broken or isn't what was asked for. The message starts with its path. */
export class SafetensorsError extends Error {
  /** The file or directory the error is about. */
  readonly path: string

  constructor(path: string, problem: string, options?: ErrorOptions) {
    super(`${path}: ${problem}`, options)
    this.name = 'SafetensorsError'
    this.path = path
  }
}

/** A name or another string of a file as it appears in messages: quoted, and never endless. */
export function quoted(text: string): string {
  return JSON.stringify(text.length > 200 ? `${text.slice(0, 200)}…` : text)
}
