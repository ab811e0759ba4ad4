import { randomBytes } from 'node:crypto'
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/**
 * A file that appears under its name only when it is complete: it is written under a temporary name beside it, synced,
 * and then renamed. A killed process leaves at most the temporary file (`.NAME.RANDOM.tmp`).
 */
export class AtomicFile implements AsyncDisposable {
  readonly path: string
  readonly #temporary: string
  readonly #overwrite: boolean
  #handle: FileHandle | undefined

  private constructor(path: string, temporary: string, overwrite: boolean, handle: FileHandle) {
    this.path = path
    this.#temporary = temporary
    this.#overwrite = overwrite
    this.#handle = handle
  }

  /** @throws Error where `path` exists and `overwrite` isn't set */
  static async create(path: string, overwrite = false): Promise<AtomicFile> {
    if (!overwrite) await refuseExisting(path)
    const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`)
    return new AtomicFile(path, temporary, overwrite, await open(temporary, 'wx'))
  }

  /** The open temporary file. */
  get handle(): FileHandle {
    if (!this.#handle) throw new Error(`${this.path}: Expected a file being written but it is finished or aborted`)
    return this.#handle
  }

  get isOpen(): boolean {
    return this.#handle !== undefined
  }

  /** Makes the file appear, durably. */
  async commit(): Promise<void> {
    const handle = this.handle
    await handle.sync()
    this.#handle = undefined
    await handle.close()
    try {
      if (!this.#overwrite) await refuseExisting(this.path)
      await rename(this.#temporary, this.path)
    } catch (error) {
      await rm(this.#temporary, { force: true })
      throw error
    }
    await syncDirectory(dirname(this.path))
  }

  /** Removes the temporary file. After `commit`, or a second time, it does nothing. */
  async abort(): Promise<void> {
    const handle = this.#handle
    if (!handle) return
    this.#handle = undefined
    await handle.close()
    await rm(this.#temporary, { force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
  }
}

/** Writes a whole file so that it is there completely or not at all. */
export async function writeFileAtomic(path: string, data: string | Uint8Array, overwrite = false): Promise<void> {
  const file = await AtomicFile.create(path, overwrite)
  try {
    await file.handle.writeFile(data)
    await file.commit()
  } finally {
    await file.abort()
  }
}

async function refuseExisting(path: string): Promise<void> {
  const found = await stat(path).then(
    () => true,
    () => false,
  )
  if (found) throw new Error(`${path}: Expected no file of that name but it exists, and overwriting wasn't asked for`)
}

/** Makes a rename durable. Windows can't sync a directory, and doesn't need to. */
export async function syncDirectory(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
