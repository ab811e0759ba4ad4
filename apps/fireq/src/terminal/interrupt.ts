import { Interrupted } from '../errors.js'

/**
 * Runs work that Ctrl-C (or SIGTERM) stops: the first aborts the signal and lets the work end cleanly, the second ends the
 * process at once.
 * @param explain completes the message, as in "the same command resumes"
 * @throws Interrupted where the work ended because of it
 */
export async function interruptible<T>(
  work: (signal: AbortSignal) => Promise<T>,
  explain?: () => string | undefined,
): Promise<T> {
  const controller = new AbortController()
  const stop = (name: 'SIGINT' | 'SIGTERM') => {
    const code = name === 'SIGINT' ? 130 : 143
    if (controller.signal.aborted) process.exit(code)
    controller.abort(new Interrupted('interrupted', code))
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  try {
    return await work(controller.signal)
  } catch (error) {
    if (!controller.signal.aborted || error !== controller.signal.reason) throw error
    const { exitCode } = error as Interrupted
    const explanation = explain?.()
    throw new Interrupted(explanation === undefined ? 'interrupted' : `interrupted: ${explanation}`, exitCode)
  } finally {
    process.off('SIGINT', stop)
    process.off('SIGTERM', stop)
  }
}
