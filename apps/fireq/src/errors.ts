import { printable } from './terminal/format.js'

/** A command line that can't be meant: the process ends with status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Ctrl-C, or a polite request to end. The message may say how to go on. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  readonly exitCode: number

  constructor(message = 'interrupted', exitCode = 130) {
    super(message)
    this.exitCode = exitCode
  }
}

/** An error in one line, whatever it says: lists become `a; b`, control characters are spelled out. */
export function oneLine(error: unknown): string {
  const message = error instanceof Error ? systemMessage(error) : String(error)
  const [first = '', ...others] = message.split(/\n\s*/)
  const rest = others.filter((line) => line !== '').join('; ')
  return printable(rest === '' ? first : `${first}${/[:;]$/.test(first) ? ' ' : '; '}${rest}`)
}

/** What the operating system says, without its jargon where there are plain words. */
function systemMessage(error: NodeJS.ErrnoException): string {
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'no such file or directory',
    EACCES: 'permission denied',
    EISDIR: 'this is a directory',
    ENOTDIR: 'this is not a directory',
    ENOSPC: 'no space left on the disk',
  }
  const plain = error.code === undefined ? undefined : words[error.code]
  return plain !== undefined && error.path !== undefined ? `${error.path}: ${plain}` : error.message
}
