import pc from 'picocolors'

/** Results: to stdout, one call a line or a block. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** Everything that isn't a result: to stderr. */
export function note(text: string, { quiet = false }: { readonly quiet?: boolean } = {}): void {
  if (!quiet) process.stderr.write(`${text}\n`)
}

/** Colors where a person looks on, and none where a file or program does. */
export function colorsFor(stream: NodeJS.WriteStream): ReturnType<typeof pc.createColors> {
  const { NO_COLOR, TERM } = process.env
  return pc.createColors(Boolean(stream.isTTY) && !NO_COLOR && TERM !== 'dumb')
}
