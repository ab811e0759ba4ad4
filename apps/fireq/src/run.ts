import { CommanderError } from 'commander'
import { Interrupted, oneLine, UsageError } from './errors.js'
import { createProgram } from './program.js'

/** Runs a command line; returns the exit status: 0 done, 1 failed, 2 not understood, 130 interrupted. */
export async function run(argv: readonly string[]): Promise<number> {
  process.stdout.on('error', leaveOnClosedPipe)
  process.stderr.on('error', leaveOnClosedPipe)
  const program = createProgram()
  try {
    await program.parseAsync(argv)
    return 0
  } catch (error) {
    // Commander has printed its help, version or error already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    process.stderr.write(`fireq: ${oneLine(error)}\n`)
    if (program.opts<{ verbose?: boolean }>().verbose) process.stderr.write(`${stackOf(error)}\n`)
    return exitCodeOf(error)
  }
}

function exitCodeOf(error: unknown): number {
  if (error instanceof Interrupted) return error.exitCode
  return error instanceof UsageError ? 2 : 1
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const stack = error.stack ?? error.message
  return error.cause === undefined ? stack : `${stack}\ncaused by ${stackOf(error.cause)}`
}

/** `fireq inspect … | head` has read enough. */
function leaveOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
  process.exit(0)
}
