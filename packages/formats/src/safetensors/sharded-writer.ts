import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomic } from '../files/atomic.js'
import { quoted, SafetensorsError } from './error.js'
import { checkSpecs, specBytes, type TensorSpec } from './layout.js'
import { INDEX_FILE, SINGLE_FILE } from './sharded.js'
import {
  type CreateOptions,
  createSafetensors,
  type SafetensorsWriter,
  type TensorBytes,
  type TensorWriter,
} from './writer.js'

/** Everything this writer may have left in a directory. */
const WEIGHT_FILE = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/

export interface CreateShardedOptions extends CreateOptions {
  /** A shard holds at most this many bytes of data, or a single larger tensor. Default 5·10⁹. */
  readonly maxShardBytes?: number
}

interface Shard {
  readonly file: string
  readonly specs: readonly TensorSpec[]
  readonly writer: SafetensorsWriter
}

/**
 * Creates the weights of a model directory: `model.safetensors`, or where they pass `maxShardBytes` the shards
 * `model-00001-of-0000N.safetensors` and, last of all, their index. Shards are filled in the order given. The directory is
 * made where it isn't there.
 *
 * Overwriting removes the old weights before the new appear, so that no moment shows a mixture that loads.
 * @throws SafetensorsError on specs that the format can't hold, or where there are weights and `overwrite` isn't set
 */
export async function createShardedSafetensors(
  directory: string,
  specs: readonly TensorSpec[],
  options: CreateShardedOptions = {},
): Promise<TensorWriter> {
  const { maxShardBytes = 5e9, metadata, overwrite = false } = options
  if (!(maxShardBytes > 0)) throw new RangeError(`Expected a positive maxShardBytes but received ${maxShardBytes}`)
  checkSpecs(directory, specs)
  const groups = splitIntoShards(directory, specs, maxShardBytes)
  await mkdir(directory, { recursive: true })
  const [existing] = await weightFiles(directory)
  if (existing !== undefined && !overwrite) {
    const problem = `Expected a directory without weights but it has ${existing}, and overwriting wasn't asked for`
    throw new SafetensorsError(directory, problem)
  }
  const shards: Shard[] = []
  try {
    for (const [index, group] of groups.entries()) {
      const file = shardName(index, groups.length)
      const writer = await createSafetensors(join(directory, file), group, { metadata, overwrite })
      shards.push({ file, specs: group, writer })
    }
  } catch (error) {
    await Promise.all(shards.map((shard) => shard.writer.abort()))
    throw error
  }
  return new ShardedWriter(directory, shards, overwrite)
}

class ShardedWriter implements TensorWriter {
  readonly #directory: string
  readonly #shards: readonly Shard[]
  readonly #overwrite: boolean
  readonly #writerOf: ReadonlyMap<string, SafetensorsWriter>

  constructor(directory: string, shards: readonly Shard[], overwrite: boolean) {
    this.#directory = directory
    this.#shards = shards
    this.#overwrite = overwrite
    this.#writerOf = new Map(shards.flatMap(({ specs, writer }) => specs.map(({ name }) => [name, writer] as const)))
  }

  async write(name: string, data: TensorBytes): Promise<void> {
    const writer = this.#writerOf.get(name)
    if (!writer) throw new SafetensorsError(this.#directory, `Expected a declared tensor but received ${quoted(name)}`)
    await writer.write(name, data)
  }

  async finish(): Promise<void> {
    for (const { writer } of this.#shards) writer.checkComplete()
    if (this.#overwrite) {
      // The index first: without it, the shards that are still there don't load.
      const old = (await weightFiles(this.#directory)).sort(
        (a, b) => Number(b === INDEX_FILE) - Number(a === INDEX_FILE),
      )
      for (const file of old) await rm(join(this.#directory, file))
    }
    for (const { writer } of this.#shards) await writer.finish()
    if (this.#shards.length > 1) await writeFileAtomic(join(this.#directory, INDEX_FILE), this.#index())
  }

  async abort(): Promise<void> {
    await Promise.all(this.#shards.map(({ writer }) => writer.abort()))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
  }

  #index(): string {
    const all = this.#shards.flatMap(({ file, specs }) => specs.map((spec) => ({ file, spec })))
    const totalSize = all.reduce((sum, { spec }) => sum + specBytes(this.#directory, spec), 0)
    const weightMap = Object.fromEntries(all.map(({ file, spec }) => [spec.name, file]))
    return `${JSON.stringify({ metadata: { total_size: totalSize }, weight_map: weightMap }, null, 2)}\n`
  }
}

/** Fills one shard after the other; at least one, and none empty unless it is the only one. */
function splitIntoShards(directory: string, specs: readonly TensorSpec[], maxShardBytes: number): TensorSpec[][] {
  const shards: TensorSpec[][] = [[]]
  let filled = 0
  for (const spec of specs) {
    const bytes = specBytes(directory, spec)
    if (filled + bytes > maxShardBytes && shards.at(-1)!.length > 0) {
      shards.push([])
      filled = 0
    }
    shards.at(-1)!.push(spec)
    filled += bytes
  }
  return shards
}

function shardName(index: number, count: number): string {
  if (count === 1) return SINGLE_FILE
  const digits = (n: number) => String(n).padStart(5, '0')
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`
}

async function weightFiles(directory: string): Promise<string[]> {
  return (await readdir(directory)).filter((file) => WEIGHT_FILE.test(file))
}
