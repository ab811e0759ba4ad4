import {
  attendDecode,
  attendPrefill,
  type CudaDevice,
  type CudaGraph,
  type CudaStream,
  DecodeBatch,
  PrefillBatch,
} from '@fireq/kernels'
import type { Progress } from '../terminal/progress.js'
import { attentionErrors } from './attention-accuracy.js'
import { ATTENTION_BASELINES, type AttentionBaseline, type AttentionBaselines } from './attention-baselines.js'
import {
  createCache,
  createQueries,
  type Format,
  fillCache,
  HEAD_DIM,
  layOut,
  type Queries,
  StoreInputs,
  tokenBytes,
} from './attention-cache.js'
import type { AttentionShape, HeadCounts } from './attention-shapes.js'
import { readClocks } from './gpu.js'
import { timeGraph } from './ours.js'
import { type Contestant, takeTurns } from './turns.js'

export interface AttentionSettings {
  readonly heads: readonly HeadCounts[]
  readonly shapes: readonly AttentionShape[]
  /** Numbers of tokens for the store kernel. */
  readonly stores: readonly number[]
  readonly formats: readonly Format[]
  readonly rounds: number
}

/** Times of one shape, in µs. */
export interface AttentionRow extends HeadCounts {
  readonly kind: AttentionShape['kind']
  readonly shape: string
  readonly microseconds: { readonly [name in Format | AttentionBaseline]?: number }
  /** Of both products; causal ones count what queries see. */
  readonly operations: number
  /** Of the INT4 cache that is read. */
  readonly kvBytes: number
  /** The better baseline's time over ours. */
  readonly ratio: { readonly [name in Format]?: number }
  /** Relative, against float64 attention on a sample of rows and heads; ours of the keys and values that the cache holds. */
  readonly error: { readonly [name in Format | AttentionBaseline]?: number }
  /** Ours against float64 attention on keys and values before they were rounded. */
  readonly totalError: { readonly [name in Format]?: number }
  /** While it was timed. */
  readonly clocks?: string
}

/** What memory didn't hold. */
export interface SkippedRow extends HeadCounts {
  readonly kind: AttentionShape['kind']
  readonly shape: string
  readonly why: string
}

/** Times of the store kernel, in µs. */
export interface StoreRow extends HeadCounts {
  readonly tokens: number
  readonly microseconds: { readonly [name in Format]?: number }
  /** That it must read and write, once each. */
  readonly bytes: number
}

/** A round through the layers of a cache: several times the L2. */
const ROTATED_BYTES = 250e6
const GRAPH_SECONDS = 3e-3
/** Of a shape's rounds, should there be more than three. */
const ROUNDS_SECONDS = 0.1

/** Times our attention beside PyTorch's in BF16, in turns, so that all meet the same clocks. */
export async function benchAttention(
  device: CudaDevice,
  stream: CudaStream,
  baselines: AttentionBaselines | undefined,
  { heads, shapes, formats, rounds }: Pick<AttentionSettings, 'heads' | 'shapes' | 'formats' | 'rounds'>,
  progress: Progress,
  signal: AbortSignal,
): Promise<{ readonly rows: AttentionRow[]; readonly skipped: SkippedRow[] }> {
  const rows: AttentionRow[] = []
  const skipped: SkippedRow[] = []
  progress.expect(heads.length * shapes.length)
  for (const counts of heads) {
    for (const shape of shapes) {
      signal.throwIfAborted()
      const { kind, label } = shape
      progress.begin(`${kind} ${label}, ${counts.heads}/${counts.keyHeads} heads`)
      try {
        rows.push(await benchShape(device, stream, baselines, shape, counts, formats, rounds, progress))
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error)
        if (!why.includes('out of GPU memory')) throw error
        progress.note(`${kind} ${label}, ${counts.heads}/${counts.keyHeads} heads: skipped: ${why}`)
        skipped.push({ kind, shape: label, ...counts, why })
      }
      device.trim()
    }
  }
  return { rows, skipped }
}

async function benchShape(
  device: CudaDevice,
  stream: CudaStream,
  baselines: AttentionBaselines | undefined,
  shape: AttentionShape,
  counts: HeadCounts,
  formats: readonly Format[],
  rounds: number,
  progress: Progress,
): Promise<AttentionRow> {
  const { kind, label, lengths } = shape
  const seen = lengths.reduce((sum, n) => sum + (kind === 'prefill' ? (n * (n + 1)) / 2 : n), 0)
  const operations = 4 * seen * counts.heads * HEAD_DIM
  const kvBytes = lengths.reduce((sum, n) => sum + n, 0) * tokenBytes(counts)
  const seconds = Math.max(operations / 5e14, kvBytes / 3e12) + 1e-5
  const count = Math.round(Math.min(48, Math.max(1, GRAPH_SECONDS / seconds)))
  const turns = Math.round(Math.min(rounds, Math.max(3, ROUNDS_SECONDS / (count * seconds))))
  const layers = kind === 'prefill' ? 1 : Math.min(48, Math.max(1, Math.ceil(ROTATED_BYTES / kvBytes)))
  using ours = new Resources()
  const contestants: Contestant<Format | AttentionBaseline>[] = []
  const results: Partial<Record<Format, Queries>> = {}
  for (const format of formats) {
    const { graph, queries } = await capture(device, stream, ours, shape, counts, format, layers, count)
    contestants.push([format, () => timeGraph(stream, graph, count)])
    results[format] = queries
  }
  for (const name of await prepareBaselines(baselines, shape, counts, count, progress)) {
    contestants.push([name, () => baselines!.time(name)])
  }
  let clocks: Promise<string | undefined> | undefined
  const microseconds: AttentionRow['microseconds'] = await takeTurns(contestants, turns, () => {
    clocks = readClocks()
  })
  const others = ATTENTION_BASELINES.flatMap((name) => microseconds[name] ?? [])
  const ratios = formats.map((format) => [format, Math.min(...others) / microseconds[format]!])
  const read = await clocks
  const error: Partial<Record<Format | AttentionBaseline, number>> = {}
  const totalError: Partial<Record<Format, number>> = {}
  for (const format of formats) {
    const { kernel, total } = await attentionErrors(stream, shape, counts, format, results[format]!.out)
    error[format] = kernel
    totalError[format] = total
  }
  for (const name of ATTENTION_BASELINES) {
    if (microseconds[name] !== undefined) error[name] = await baselines!.error(name)
  }
  return {
    ...{ kind, shape: label, ...counts, microseconds, operations, kvBytes },
    ratio: others.length > 0 ? Object.fromEntries(ratios) : {},
    ...{ error, totalError },
    ...(read !== undefined && { clocks: read }),
  }
}

/** The baselines that can run; those of one length each. */
async function prepareBaselines(
  baselines: AttentionBaselines | undefined,
  shape: AttentionShape,
  counts: HeadCounts,
  count: number,
  progress: Progress,
): Promise<readonly AttentionBaseline[]> {
  if (baselines === undefined || shape.lengths.some((length) => length !== shape.lengths[0])) return []
  try {
    const missing = await baselines.prepare(shape, counts, count, shape.kind === 'prefill' ? 1 : ROTATED_BYTES)
    for (const [name, why] of Object.entries(missing)) progress.note(`${shape.label}: ${name} not run: ${why}`)
    return ATTENTION_BASELINES.filter((name) => missing[name] === undefined)
  } catch (error) {
    progress.note(`${shape.label}: baselines not run: ${error instanceof Error ? error.message : String(error)}`)
    return []
  }
}

class Resources implements Disposable {
  readonly #all: Disposable[] = []

  keep<T extends Disposable>(resource: T): T {
    this.#all.push(resource)
    return resource
  }

  [Symbol.dispose](): void {
    for (const resource of this.#all) resource[Symbol.dispose]()
  }
}

/** A graph of `count` attentions, on the layers of a cache in turn, and where they leave their result. */
async function capture(
  device: CudaDevice,
  stream: CudaStream,
  resources: Resources,
  { kind, lengths }: AttentionShape,
  counts: HeadCounts,
  format: Format,
  layers: number,
  count: number,
): Promise<{ readonly graph: CudaGraph; readonly queries: Queries }> {
  const cache = resources.keep(await fillCache(device, stream, counts, format, lengths, layers))
  const { pagesOf } = layOut(lengths)
  const sequences = lengths.map((length, s) => ({ length, newTokens: length, pages: pagesOf[s]! }))
  const numAttentionHeads = counts.heads
  const rows = kind === 'prefill' ? lengths.reduce((sum, length) => sum + length, 0) : lengths.length
  const queries = await createQueries(stream, counts, rows)
  for (const buffer of Object.values(queries)) resources.keep(buffer)
  const repeat = (attend: (layer: number) => void) =>
    stream.capture(() => {
      for (let i = 0; i < count; i++) attend(i % layers)
    })
  if (kind === 'prefill') {
    const batch = resources.keep(await PrefillBatch.create(stream, cache, { sequences, numAttentionHeads }))
    return { queries, graph: resources.keep(repeat((layer) => attendPrefill(stream, { batch, layer, ...queries }))) }
  }
  const pagesPerSequence = Math.max(...pagesOf.map((pages) => pages.length))
  const batch = resources.keep(
    await DecodeBatch.create(stream, cache, { sequences: lengths.length, pagesPerSequence, numAttentionHeads }),
  )
  await batch.update(stream, sequences)
  return {
    queries,
    graph: resources.keep(repeat((layer) => attendDecode(stream, { batch, layer, ...queries, dependent: true }))),
  }
}

/** Times the store kernel, on inputs and layers in turn. */
export async function benchStore(
  device: CudaDevice,
  stream: CudaStream,
  { heads, stores, formats, rounds }: Pick<AttentionSettings, 'heads' | 'stores' | 'formats' | 'rounds'>,
  progress: Progress,
  signal: AbortSignal,
): Promise<StoreRow[]> {
  const rows: StoreRow[] = []
  progress.expect(heads.length * stores.length)
  for (const counts of heads) {
    for (const tokens of stores) {
      signal.throwIfAborted()
      progress.begin(`store of ${tokens} tokens, ${counts.heads}/${counts.keyHeads} heads`)
      rows.push(await benchStored(device, stream, counts, tokens, formats, rounds))
      device.trim()
    }
  }
  return rows
}

async function benchStored(
  device: CudaDevice,
  stream: CudaStream,
  counts: HeadCounts,
  tokens: number,
  formats: readonly Format[],
  rounds: number,
): Promise<StoreRow> {
  const { heads, keyHeads } = counts
  const bytes = tokens * ((heads + 2 * keyHeads) * HEAD_DIM * 2 + heads * (HEAD_DIM + 4) + tokenBytes(counts) + 8)
  const copies = Math.min(32, Math.max(2, Math.ceil(ROTATED_BYTES / bytes)))
  using resources = new Resources()
  const inputs: StoreInputs[] = []
  for (let i = 0; i < copies; i++) inputs.push(resources.keep(await StoreInputs.create(stream, counts, tokens)))
  const pages = Math.ceil(tokens / 64)
  const contestants = formats.map((format): Contestant<Format> => {
    const cache = resources.keep(createCache(device, stream, counts, format, copies, pages))
    const graph = resources.keep(
      stream.capture(() => {
        for (const [layer, input] of inputs.entries()) input.store(stream, cache, layer)
      }),
    )
    return [format, () => timeGraph(stream, graph, copies)]
  })
  return { tokens, ...counts, microseconds: await takeTurns(contestants, rounds), bytes }
}
