import { mkdir, readdir, realpath, rename, rm, rmdir, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { syncDirectory } from '../files/atomic.js'
import { exists } from '../safetensors/sharded.js'
import { CheckpointError } from './error.js'
import { isIntact, type Journal, readJournal, type ShardRecord, writeJournal } from './journal.js'
import { acquireLock } from './lock.js'

interface StagingOptions {
  /** The model that is read, which must not be written over. */
  readonly sourceDir: string
  readonly identity: string
  readonly overwrite: boolean
  /** The file name of every shard by its key. */
  readonly files: ReadonlyMap<string, string>
}

/**
 * `<outDir>.partial`, where a model grows until it is complete:
 *
 *     lock           the process that writes
 *     journal.json   identity, and the shards that are there
 *     model/         becomes <outDir> by one rename
 *     replaced/      the old <outDir>, only between the two renames that exchange it
 *
 * Killed at any moment, either this directory can be resumed or <outDir> is complete.
 */
export class Staging {
  readonly outDir: string
  readonly modelDir: string
  readonly #dir: string
  readonly #overwrite: boolean
  readonly #release: () => Promise<void>
  #journal: Journal

  private constructor(paths: Paths, overwrite: boolean, release: () => Promise<void>, journal: Journal) {
    this.outDir = paths.out
    this.modelDir = paths.model
    this.#dir = paths.dir
    this.#overwrite = overwrite
    this.#release = release
    this.#journal = journal
  }

  /**
   * Creates the directory, or takes it up where an earlier process left it.
   * @throws CheckpointError where something is in the way that may not be replaced
   */
  static async open(outDir: string, options: StagingOptions): Promise<Staging> {
    const paths = pathsOf(resolve(outDir))
    await refuseForeign(paths)
    await refuseSource(paths.out, options.sourceDir)
    await mkdir(paths.dir, { recursive: true })
    const release = await acquireLock(join(paths.dir, 'lock'))
    try {
      await recover(paths)
      await refuseOutput(paths.out, options.overwrite)
      const journal = await takeUp(paths, options)
      return new Staging(paths, options.overwrite, release, journal)
    } catch (error) {
      await release().catch(() => {})
      // Only where nothing is in it.
      await rmdir(paths.dir).catch(() => {})
      throw error
    }
  }

  get shards(): Readonly<Record<string, ShardRecord>> {
    return this.#journal.shards
  }

  /** Notes a shard that is complete. */
  async record(key: string, shard: ShardRecord): Promise<void> {
    const journal = { ...this.#journal, shards: { ...this.#journal.shards, [key]: shard } }
    await writeJournal(journalOf(this.#dir), journal)
    this.#journal = journal
  }

  /** Makes the model appear, complete, under its name. */
  async publish(): Promise<void> {
    await refuseOutput(this.outDir, this.#overwrite)
    await syncDirectory(this.modelDir)
    if (await exists(this.outDir)) await rename(this.outDir, join(this.#dir, 'replaced'))
    await rename(this.modelDir, this.outDir)
    await syncDirectory(dirname(this.outDir))
    await rm(this.#dir, { recursive: true })
    await this.close()
  }

  /** Lets another process take it up. */
  async close(): Promise<void> {
    await this.#release()
  }
}

interface Paths {
  readonly out: string
  readonly dir: string
  readonly model: string
  readonly replaced: string
}

function pathsOf(out: string): Paths {
  const dir = `${out}.partial`
  return { out, dir, model: join(dir, 'model'), replaced: join(dir, 'replaced') }
}

function journalOf(dir: string): string {
  return join(dir, 'journal.json')
}

/** A directory of that name with anything else in it isn't ours to empty. */
async function refuseForeign({ dir }: Paths): Promise<void> {
  if (!(await exists(dir))) return
  if (!(await stat(dir)).isDirectory()) throw new CheckpointError(dir, 'Expected a directory but received a file')
  const content = await readdir(dir)
  const ours = content.includes('journal.json')
    ? /^(lock|journal\.json|model|replaced|\..*\.tmp)$/
    : /^(lock|replaced|\.journal\.json\..*\.tmp)$/
  const foreign = content.find((name) => !ours.test(name))
  if (foreign !== undefined) {
    throw new CheckpointError(dir, `Expected the directory of an unfinished model but received "${foreign}" in it`)
  }
}

/** Neither the source itself nor a directory around it can be the output. */
async function refuseSource(out: string, sourceDir: string): Promise<void> {
  const source = await realpath(sourceDir).catch((cause) => {
    throw new CheckpointError(sourceDir, 'Expected a model directory but received none', { cause })
  })
  const target = (await exists(out)) ? await realpath(out) : out
  if (source === target || source.startsWith(target + sep)) {
    throw new CheckpointError(out, `Expected an output directory apart from the model at ${source}`)
  }
}

/** Ends what a killed process had begun: the exchange of an old output, or the removal of a finished staging directory. */
async function recover({ out, dir, model, replaced }: Paths): Promise<void> {
  if (await exists(replaced)) {
    if (!(await exists(model))) await rm(replaced, { recursive: true })
    else if (!(await exists(out))) await rename(replaced, out)
    else
      throw new CheckpointError(
        replaced,
        `Expected the model that ${out} was, but that is there too; remove one of them`,
      )
  }
  for (const name of await readdir(dir)) if (name.endsWith('.tmp')) await rm(join(dir, name))
  if (!(await exists(model))) await rm(journalOf(dir), { force: true })
}

async function refuseOutput(out: string, overwrite: boolean): Promise<void> {
  if (!(await exists(out))) return
  if (!(await stat(out)).isDirectory()) throw new CheckpointError(out, 'Expected a directory but received a file')
  const content = await readdir(out)
  if (content.length === 0) return
  if (!overwrite)
    throw new CheckpointError(out, "Expected no directory of that name but it exists, and overwriting wasn't asked for")
  if (!content.includes('config.json')) {
    throw new CheckpointError(out, `Expected a model to overwrite but received a directory without config.json`)
  }
}

/** The journal with the shards that are still intact; everything else is removed. */
async function takeUp(paths: Paths, { identity, overwrite, files }: StagingOptions): Promise<Journal> {
  const path = journalOf(paths.dir)
  const found = await readJournal(path)
  const same = found?.identity === identity
  if (found && !same && !overwrite) {
    const problem =
      'Expected an unfinished model of the same source and recipe but received another one; remove it, or ask to overwrite'
    throw new CheckpointError(paths.dir, problem)
  }
  const shards: Record<string, ShardRecord> = {}
  if (same) {
    for (const [key, shard] of Object.entries(found.shards)) {
      if (files.get(key) === shard.file && (await isIntact(paths.model, shard))) shards[key] = shard
    }
  }
  const journal: Journal = { formatVersion: 1, identity, shards }
  await writeJournal(path, journal)
  await mkdir(paths.model, { recursive: true })
  const intact = new Set(Object.values(shards).map(({ file }) => file))
  for (const name of await readdir(paths.model)) {
    if (!intact.has(basename(name))) await rm(join(paths.model, name), { recursive: true })
  }
  return journal
}
