import { type ChildProcess, spawn } from 'node:child_process'
import { appendFile, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, test, vi } from 'vitest'
import { createCheckpoint, openModel } from '../src/index.js'
import { filesOf, makeModel, makeTensors, TINY, writeAll } from './checkpoint-files.js'
import { temporaryDirectory } from './safetensors-files.js'

/**
 * A process that is killed: every operation that changes files is counted, the one at which it dies and all after it
 * throw, also those that clean up.
 */
const process_ = vi.hoisted(() => ({ operations: 0, diesAt: Infinity, log: [] as string[] }))

vi.mock('node:fs/promises', async (importOriginal) => {
  const real = await importOriginal<typeof import('node:fs/promises')>()
  const counted = <A extends unknown[], R>(name: string, operation: (...args: A) => Promise<R>) => {
    return async (...args: A): Promise<R> => {
      if (process_.operations++ >= process_.diesAt) throw new Error('killed')
      process_.log.push(name)
      return operation(...args)
    }
  }
  const open = counted('open', async (...args: Parameters<typeof real.open>) => {
    const handle = await real.open(...args)
    const write = handle.write.bind(handle) as (...args: unknown[]) => Promise<unknown>
    return Object.assign(handle, {
      write: counted('write', write),
      writeFile: counted('writeFile', handle.writeFile.bind(handle)),
      truncate: counted('truncate', handle.truncate.bind(handle)),
      // Counted, but not done: it takes longer than all the rest, and no power fails here.
      sync: counted('sync', async () => {}),
    })
  })
  const { mkdir, rename, rm, rmdir, writeFile } = real
  return {
    ...real,
    open,
    mkdir: counted('mkdir', mkdir),
    rename: counted('rename', rename),
    rm: counted('rm', rm),
    rmdir: counted('rmdir', rmdir),
    writeFile: counted('writeFile', writeFile),
  }
})

/** One layer of the tiny model, so that every operation can be tried. */
const RAW = { ...TINY, num_hidden_layers: 1, vocab_size: 8, intermediate_size: 32 }
const TENSORS = makeTensors(RAW)

beforeEach(() => revive())

function revive(): void {
  Object.assign(process_, { operations: 0, diesAt: Infinity, log: [] })
}

/** Runs until the operation of that number, from 0, kills it. */
async function run(diesAt: number, work: () => Promise<void>): Promise<{ killed: boolean; log: string[] }> {
  revive()
  process_.diesAt = diesAt
  try {
    await work()
    return { killed: false, log: process_.log }
  } catch (error) {
    if (!isKill(error)) throw error
    return { killed: true, log: process_.log }
  } finally {
    revive()
  }
}

/** Cleaning up fails too, and wraps the error that it was for. */
function isKill(error: unknown): boolean {
  const { message, suppressed, cause } = error as { message: string; suppressed?: unknown; cause?: unknown }
  return message === 'killed' || [suppressed, cause].some((inner) => inner !== undefined && isKill(inner))
}

/** What loads is whole. */
async function loads(dir: string): Promise<boolean> {
  try {
    await (await openModel(dir)).close()
    return true
  } catch {
    return false
  }
}

describe('killed at any operation', () => {
  test('a run leaves nothing that loads, or all; the next gives the same bytes as one that was never killed', async () => {
    const [source, dir] = [await makeModel(RAW), await temporaryDirectory()]
    const reference = join(dir, 'reference')
    const { log } = await run(Infinity, () => writeAll(reference, source, RAW, TENSORS))
    const operations = log.length
    const expected = await filesOf(reference)
    expect(operations).toBeGreaterThan(50)

    for (let n = 0; n < operations; n++) {
      const out = join(dir, `out-${n}`)
      const { killed } = await run(n, () => writeAll(out, source, RAW, TENSORS))
      expect(killed).toBe(true)
      const finished = (await readdir(dir)).includes(`out-${n}`)
      if (finished) {
        // Only what is beside it was left to be done; a new run says that there is a model, and cleans up.
        await expect(writeAll(out, source, RAW, TENSORS), `operation ${n}`).rejects.toThrow('it exists')
      } else {
        await writeAll(out, source, RAW, TENSORS)
      }
      expect(await filesOf(out), `operation ${n}`).toEqual(expected)
      expect(await readdir(dir), `operation ${n}`).toEqual([`out-${n}`, 'reference'])
      await rm(out, { recursive: true })
    }
  }, 120_000)

  test('overwriting a model leaves the old one or the new one, or a state from which the next run recovers it', async () => {
    const [source, dir] = [await makeModel(RAW), await temporaryDirectory()]
    const [out, plain] = [join(dir, 'out'), makeTensors(RAW, false)]
    const overwrite = () => writeAll(out, source, RAW, TENSORS, { overwrite: true, identity: 'new' })
    const old = () => writeAll(out, source, RAW, plain, { identity: 'old' })
    await old()
    const before = await filesOf(out)
    const operations = (await run(Infinity, overwrite)).log.length
    const after = await filesOf(out)
    expect(after).not.toEqual(before)

    // The operations before these only write beside the old model.
    for (let n = operations - 12; n < operations; n++) {
      await rm(out, { recursive: true })
      await old()
      await run(n, overwrite)
      const there = (await readdir(dir)).includes('out')
      if (there) expect([before, after], `operation ${n}`).toContainEqual(await filesOf(out))
      else {
        // Between the two renames: a run that may not overwrite puts the old model back.
        await expect(old(), `operation ${n}`).rejects.toThrow('it exists')
        expect(await filesOf(out), `operation ${n}`).toEqual(before)
      }
      await overwrite()
      expect(await filesOf(out), `operation ${n}`).toEqual(after)
      expect(await readdir(dir), `operation ${n}`).toEqual(['out'])
    }
  }, 60_000)

  test('every rename follows a sync of what it makes appear', async () => {
    const [source, out] = [await makeModel(RAW), join(await temporaryDirectory(), 'out')]
    const { log } = await run(Infinity, () => writeAll(out, source, RAW, TENSORS))
    const renames = log.flatMap((operation, index) => (operation === 'rename' ? [index] : []))
    // Three shards; the journal before, and after each; fireq.json, index, config and three copies; the directory.
    expect(renames).toHaveLength(3 + 4 + 6 + 1)
    for (const index of renames) expect(log[index - 1]).toBe('sync')
  })

  test('a staging directory never loads before its last files are written', async () => {
    const [source, out] = [await makeModel(RAW), join(await temporaryDirectory(), 'out')]
    await using writer = await createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'a' })
    for (const [key, tensors] of TENSORS) {
      await writer.writeShard(key, tensors)
      for (const path of [out, `${out}.partial`, join(`${out}.partial`, 'model')]) expect(await loads(path)).toBe(false)
    }
  })
})

describe('taking up', () => {
  async function interrupted(): Promise<{ source: string; out: string; expected: Record<string, string> }> {
    const [source, dir] = [await makeModel(RAW), await temporaryDirectory()]
    await writeAll(join(dir, 'reference'), source, RAW, TENSORS)
    const expected = await filesOf(join(dir, 'reference'))
    const out = join(dir, 'out')
    await using writer = await createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'a' })
    for (const key of ['embed', 'layer-0']) await writer.writeShard(key, TENSORS.get(key)!, { key })
    return { source, out, expected }
  }
  const shard = (out: string) => join(`${out}.partial`, 'model', 'model-00002-of-00003.safetensors')

  test('finds the shards and notes of the run before', async () => {
    const { source, out } = await interrupted()
    await using writer = await createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'a' })
    expect(writer.completed()).toEqual(['embed', 'layer-0'])
    expect(writer.note('layer-0')).toEqual({ key: 'layer-0' })
    expect(writer.note('head')).toBeUndefined()
    expect(writer.note('toString')).toBeUndefined()
  })

  test.each<[string, (path: string) => Promise<void>]>([
    ['missing', (path) => rm(path)],
    ['cut', (path) => truncate(path, 1000)],
    ['longer', (path) => appendFile(path, 'x')],
    [
      'changed in one bit',
      async (path) => {
        const bytes = await readFile(path)
        bytes[bytes.length - 1] ^= 1
        await writeFile(path, bytes)
      },
    ],
  ])('writes a shard again that is %s', async (_, damage) => {
    const { source, out, expected } = await interrupted()
    await damage(shard(out))
    await using writer = await createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'a' })
    expect(writer.completed()).toEqual(['embed'])
    await writer.close()
    await writeAll(out, source, RAW, TENSORS)
    expect(await filesOf(out)).toEqual(expected)
  })

  test('removes what it does not know in the model being written', async () => {
    const { source, out, expected } = await interrupted()
    await writeFile(join(`${out}.partial`, 'model', '.model-00003-of-00003.safetensors.0123.tmp'), 'half a shard')
    await mkdir(join(`${out}.partial`, 'model', 'subdirectory'))
    await writeAll(out, source, RAW, TENSORS)
    expect(await filesOf(out)).toEqual(expected)
  })

  test('refuses another identity, unless it may overwrite', async () => {
    const { source, out } = await interrupted()
    const create = (overwrite: boolean) =>
      createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'b', overwrite })
    await expect(create(false)).rejects.toThrow(
      `${out}.partial: Expected an unfinished model of the same source and recipe but received another one`,
    )
    await using writer = await create(true)
    expect(writer.completed()).toEqual([])
  })

  test('refuses a journal that is broken', async () => {
    const { source, out } = await interrupted()
    const journal = join(`${out}.partial`, 'journal.json')
    await writeFile(journal, '{"formatVersion":1,"identity":"a","shards":{"embed":{"file":"../x"}}}')
    await expect(writeAll(out, source, RAW, TENSORS)).rejects.toThrow(
      `Expected an integer from 0 to 9007199254740991 for shards.embed.bytes in ${journal} but received nothing`,
    )
  })

  test('refuses while a process writes, this one or another, and takes over when that has ended', async () => {
    const { source, out } = await interrupted()
    const create = () => createCheckpoint(out, { sourceDir: source, sourceConfig: RAW, identity: 'a' })
    const message = (pid: number | undefined) =>
      `${join(`${out}.partial`, 'lock')}: Expected a lock that nobody holds but process ${pid} is writing this model`
    const writer = await create()
    await expect(create()).rejects.toThrow(message(process.pid))
    await writer.close()

    const other = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'])
    try {
      await writeFile(join(`${out}.partial`, 'lock'), JSON.stringify({ pid: other.pid, started: await startOf(other) }))
      await expect(create()).rejects.toThrow(message(other.pid))
    } finally {
      const ended = new Promise((resolve) => other.once('exit', resolve))
      other.kill('SIGKILL')
      await ended
    }
    await (await create()).close()
  })
})

/** As the lock of that process would say; see proc_pid_stat(5), field 22. */
async function startOf({ pid }: ChildProcess): Promise<string> {
  if (process.platform !== 'linux') return ''
  return (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ')[21]
}
