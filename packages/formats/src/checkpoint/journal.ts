import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { z } from 'zod'
import { integer, oneOf } from '../config/fields.js'
import { readJsonFile, validate } from '../config/json.js'
import { writeFileAtomic } from '../files/atomic.js'
import { exists } from '../safetensors/sharded.js'
import { type WeightFormat, weightFormatSchema } from './metadata.js'

/** A shard that lies in the staging directory, complete. */
export interface ShardRecord {
  readonly file: string
  readonly bytes: number
  readonly sha256: string
  /** Bytes of the arrays alone. */
  readonly dataBytes: number
  /** Its arrays by their names in the file. */
  readonly arrays: readonly string[]
  /** Its INT4 weights. */
  readonly weights: Readonly<Record<string, { readonly groupSize: number; readonly format: WeightFormat }>>
  /** What the caller wants to find again after a resume. */
  readonly note?: unknown
}

/** What has been written, and of which model. */
export interface Journal {
  readonly formatVersion: 1
  /** Names the source and the recipe: shards of another identity aren't part of this model. */
  readonly identity: string
  /** By the group's key. */
  readonly shards: Readonly<Record<string, ShardRecord>>
}

const text = z.string({ error: 'a string' })
const bytes = integer(0, Number.MAX_SAFE_INTEGER)
const schema: z.ZodType<Journal> = z.strictObject({
  formatVersion: oneOf(1),
  identity: text,
  shards: z.record(
    z.string(),
    z.strictObject({
      file: text,
      bytes,
      sha256: text,
      dataBytes: bytes,
      arrays: z.array(text),
      weights: z.record(
        z.string(),
        z.strictObject({ groupSize: integer(2, Number.MAX_SAFE_INTEGER), format: weightFormatSchema }),
      ),
      note: z.unknown().optional(),
    }),
  ),
})

/** @returns undefined where there is none */
export async function readJournal(path: string): Promise<Journal | undefined> {
  return (await exists(path)) ? validate(schema, await readJsonFile(path), path) : undefined
}

export async function writeJournal(path: string, journal: Journal): Promise<void> {
  await writeFileAtomic(path, `${JSON.stringify(journal)}\n`, true)
}

/** Whether a shard's file is there and is the one that was written. */
export async function isIntact(directory: string, { file, bytes, sha256 }: ShardRecord): Promise<boolean> {
  const path = join(directory, file)
  if (!(await exists(path)) || (await stat(path)).size !== bytes) return false
  return (await sha256Of(path)) === sha256
}

export async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  return hash.digest('hex')
}
