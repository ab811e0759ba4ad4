import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { quoted, SafetensorsError } from './error.js'
import { MAX_HEADER_BYTES, type TensorInfo } from './header.js'
import { openSafetensors, type SafetensorsFile } from './reader.js'
import type { TensorStore } from './store.js'

export const SINGLE_FILE = 'model.safetensors'
export const INDEX_FILE = 'model.safetensors.index.json'

/**
 * Opens the weights of a model directory: `model.safetensors`, or else the shards of `model.safetensors.index.json`.
 * Every tensor of the index must be in the shard it names, and no tensor in two. Tensors the index doesn't name are there
 * too.
 * @throws SafetensorsError naming the file and the tensor
 */
export async function openShardedSafetensors(directory: string): Promise<TensorStore> {
  if (await exists(join(directory, SINGLE_FILE))) return openSafetensors(join(directory, SINGLE_FILE))
  const indexPath = join(directory, INDEX_FILE)
  if (!(await exists(indexPath))) {
    throw new SafetensorsError(
      directory,
      `Expected ${SINGLE_FILE} or ${INDEX_FILE} in the directory but received neither`,
    )
  }
  const shardOf = await readIndex(indexPath)
  const shards = new Map<string, SafetensorsFile>()
  try {
    for (const shard of new Set(shardOf.values())) {
      const path = join(directory, shard)
      if (!(await exists(path))) {
        throw new SafetensorsError(indexPath, `Expected the shard ${quoted(shard)} in the directory but received none`)
      }
      shards.set(shard, await openSafetensors(path))
    }
    const files = filesOfTensors(indexPath, shards)
    for (const [name, shard] of shardOf) {
      if (!shards.get(shard)?.has(name)) {
        throw new SafetensorsError(
          indexPath,
          `Expected tensor ${quoted(name)} in ${quoted(shard)} but the shard has none of that name`,
        )
      }
    }
    return new ShardedStore(directory, [...shards.values()], files)
  } catch (error) {
    await Promise.all([...shards.values()].map((file) => file.close()))
    throw error
  }
}

class ShardedStore implements TensorStore {
  readonly path: string
  readonly #shards: readonly SafetensorsFile[]
  readonly #files: ReadonlyMap<string, SafetensorsFile>

  constructor(path: string, shards: readonly SafetensorsFile[], files: ReadonlyMap<string, SafetensorsFile>) {
    this.path = path
    this.#shards = shards
    this.#files = files
  }

  names(): string[] {
    return [...this.#files.keys()]
  }

  has(name: string): boolean {
    return this.#files.has(name)
  }

  info(name: string): TensorInfo {
    return this.#fileOf(name).info(name)
  }

  fileOf(name: string): string {
    return this.#fileOf(name).path
  }

  async read(name: string): Promise<Uint8Array> {
    return this.#fileOf(name).read(name)
  }

  async readRange(name: string, byteStart: number, byteEnd: number): Promise<Uint8Array> {
    return this.#fileOf(name).readRange(name, byteStart, byteEnd)
  }

  async close(): Promise<void> {
    await Promise.all(this.#shards.map((file) => file.close()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #fileOf(name: string): SafetensorsFile {
    const file = this.#files.get(name)
    if (!file) throw new SafetensorsError(this.path, `Expected tensor ${quoted(name)} but no file has one of that name`)
    return file
  }
}

/** The shard that holds each tensor. */
function filesOfTensors(indexPath: string, shards: ReadonlyMap<string, SafetensorsFile>): Map<string, SafetensorsFile> {
  const files = new Map<string, SafetensorsFile>()
  for (const file of shards.values()) {
    for (const name of file.names()) {
      const other = files.get(name)
      if (other) {
        const problem = `Expected tensor ${quoted(name)} in one shard but received it in ${other.path} and ${file.path}`
        throw new SafetensorsError(indexPath, problem)
      }
      files.set(name, file)
    }
  }
  return files
}

/** tensor → shard, as the index has it, every shard a plain file name. */
async function readIndex(path: string): Promise<Map<string, string>> {
  const { size } = await stat(path)
  if (size > MAX_HEADER_BYTES) {
    throw new SafetensorsError(path, `Expected an index of at most ${MAX_HEADER_BYTES} bytes but received ${size}`)
  }
  let index: unknown
  try {
    index = JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw new SafetensorsError(path, `Expected JSON but received: ${(cause as Error).message}`, { cause })
  }
  const weightMap = isObject(index) ? index.weight_map : undefined
  if (!isObject(weightMap)) throw new SafetensorsError(path, 'Expected an object weight_map but received none')
  const shardOf = new Map<string, string>()
  for (const [name, shard] of Object.entries(weightMap)) {
    if (typeof shard !== 'string' || !isPlainFileName(shard)) {
      const problem = `Expected a plain file name for tensor ${quoted(name)} but received ${JSON.stringify(shard)}`
      throw new SafetensorsError(path, problem)
    }
    shardOf.set(name, shard)
  }
  return shardOf
}

/** A name that can't lead out of the directory. */
function isPlainFileName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\\:\0]/.test(name)
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return false
      throw error
    },
  )
}
