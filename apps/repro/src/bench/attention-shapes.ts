import { readFile } from 'node:fs/promises'
import { gunzipSync } from 'node:zlib'
import { spread } from './linear-problem.js'
import { AZURE_CONVERSATION, MOONCAKE_CONVERSATION } from './serving-lengths.js'

export interface HeadCounts {
  readonly heads: number
  readonly keyHeads: number
}

/** Sequences that are attended to in one launch: all their tokens are new (prefill), or one each (decode). */
export interface AttentionShape {
  readonly kind: 'prefill' | 'decode'
  /** "16 × 1024" */
  readonly label: string
  readonly lengths: readonly number[]
}

export const HEADS: readonly HeadCounts[] = [8, 32].map((keyHeads) => ({ heads: 32, keyHeads }))

export const PREFILLS: readonly AttentionShape[] = (
  [
    [16, 1024],
    [8, 2048],
    [4, 4096],
    [1, 16384],
    [1, 65536],
  ] as const
).map(([batch, length]) => equalLengths('prefill', batch, length))

export const DECODES: readonly AttentionShape[] = [1024, 4096, 16384].flatMap((length) =>
  [1, 16, 64, 128, 256].map((batch) => equalLengths('decode', batch, length)),
)

export const MIX_NAMES = ['azure', 'mooncake'] as const

/** Decoding for requests as services had them. */
export const MIXES: Readonly<Record<(typeof MIX_NAMES)[number], AttentionShape>> = {
  azure: mixedLengths(AZURE_CONVERSATION, 'Azure: '),
  mooncake: mixedLengths(MOONCAKE_CONVERSATION, 'Mooncake: '),
}

export const STORES: readonly number[] = [1, 16, 128, 1024, 4096, 16384]

export function equalLengths(kind: AttentionShape['kind'], batch: number, length: number): AttentionShape {
  return { kind, label: `${batch} × ${length}`, lengths: new Array<number>(batch).fill(length) }
}

function mixedLengths(lengths: readonly number[], name = ''): AttentionShape {
  const [least, most] = [Math.min(...lengths), Math.max(...lengths)]
  const mean = Math.round(lengths.reduce((sum, length) => sum + length, 0) / lengths.length)
  return { kind: 'decode', label: `${name}${lengths.length} × ${least} … ${most} (mean ${mean})`, lengths }
}

const MOST_TOKENS = 131072
/** Columns of the traces that are known: Azure's, Sarathi's and Mooncake's. */
const COLUMNS = [
  ['ContextTokens', 'GeneratedTokens'],
  ['num_prefill_tokens', 'num_decode_tokens'],
  ['input_length', 'output_length'],
] as const

/**
 * Decoding for `count` of a trace's requests, evenly through the file, each halfway through its answer. CSV with a header, or
 * JSON a line; may be gzipped. Throws an Error if there are no lengths in it.
 */
export async function traceShape(path: string, count: number): Promise<AttentionShape> {
  const bytes = await readFile(path)
  const text = (bytes[0] === 0x1f && bytes[1] === 0x8b ? gunzipSync(bytes) : bytes).toString('utf8')
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  const isJson = lines[0]?.startsWith('{') === true
  const header = isJson ? Object.keys(JSON.parse(lines[0]!) as object) : (lines.shift()?.trim().split(',') ?? [])
  const names = COLUMNS.find((columns) => columns.every((name) => header.includes(name)))
  const known = COLUMNS.map((columns) => columns.join(' and ')).join(', or ')
  if (names === undefined) throw new Error(`${path}: expected columns ${known}, but found ${header.join(', ')}`)
  const requests = spread(lines.length, count).map((at) => lines[at]!)
  const lengths = requests.map((line) => {
    const cells = isJson ? [] : line.split(',')
    const request = isJson ? (JSON.parse(line) as Record<string, unknown>) : {}
    const [prompt, answer] = names.map((name) => Number(isJson ? request[name] : cells[header.indexOf(name)]))
    const length = Math.min(MOST_TOKENS, Math.ceil(prompt! + answer! / 2))
    if (!(length >= 1)) throw new Error(`${path}: expected lengths in every line, but found ${line}`)
    return length
  })
  if (lengths.length === 0) throw new Error(`${path}: expected requests, but found none`)
  return mixedLengths(lengths)
}
