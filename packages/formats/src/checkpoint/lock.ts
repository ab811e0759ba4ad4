import { readFile, rm, writeFile } from 'node:fs/promises'
import { CheckpointError } from './error.js'

/** Locks of this process: a file that names it but isn't here was left by an earlier process with the same number. */
const held = new Set<string>()

/**
 * Takes a lock file that names this process. One left by a process that has ended, however it ended, is taken over.
 * @returns what releases it
 * @throws CheckpointError where a running process holds it
 */
export async function acquireLock(path: string): Promise<() => Promise<void>> {
  const owner = held.has(path) ? process.pid : await runningOwner(path)
  if (owner !== undefined) {
    throw new CheckpointError(path, `Expected a lock that nobody holds but process ${owner} is writing this model`)
  }
  await rm(path, { force: true })
  await writeFile(path, JSON.stringify({ pid: process.pid, started: await startOf(process.pid) }), { flag: 'wx' })
  held.add(path)
  return async () => {
    if (held.delete(path)) await rm(path, { force: true })
  }
}

async function runningOwner(path: string): Promise<number | undefined> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return ''
    throw error
  })
  const [, pid, started] = /^\{"pid":(\d+),"started":"(.*)"\}$/.exec(text) ?? []
  if (pid === undefined || Number(pid) === process.pid) return undefined
  return (await startOf(Number(pid))) === started ? Number(pid) : undefined
}

/** When a process started, so that a reused number isn't taken for it; undefined if it has ended. */
async function startOf(pid: number): Promise<string | undefined> {
  if (process.platform === 'linux') {
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
    // The fields after the command, which may hold anything: the state first, the start time as the twentieth.
    const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ended = !fields || fields[0] === 'Z' || fields[0] === 'X'
    return ended ? undefined : fields[19]
  }
  try {
    process.kill(pid, 0)
    return ''
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH' ? undefined : ''
  }
}
