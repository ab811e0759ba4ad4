import { decodeE4m3, encodeBf16, type KvFormat } from '@fireq/formats'
import { type CudaBuffer, type CudaDevice, CudaKvCache, type CudaStream, ropeStoreKv } from '@fireq/kernels'
import type { HeadCounts } from './attention-shapes.js'
import { activationPattern } from './linear-problem.js'
import { uploadRepeated } from './ours.js'

export const FORMATS = ['symmetric', 'asymmetric'] as const
export type Format = (typeof FORMATS)[number]

export const HEAD_DIM = 128
const PAGE_TOKENS = 64
/** Tokens that are stored by one launch. */
export const PART = 4096
/** Of q's E4M3 codes, so that queries are about 1. */
export const DEVIATION = 110
/** Llama 3's. */
export const INVERSE_FREQUENCIES: Float32Array = Float32Array.from(
  { length: HEAD_DIM / 2 },
  (_, i) => 500000 ** (-i / (HEAD_DIM / 2)),
)
/** Coprime to most numbers of pages. */
const STRIDE = 7919

/** Bytes of cache that a token takes. */
export const tokenBytes = ({ keyHeads }: HeadCounts): number => keyHeads * 132

let pattern: Uint16Array | undefined

/** The repeating part of a projection's output, BF16 numbers of about 1. */
function projectionPattern(): Uint16Array {
  pattern ??= encodeBf16(decodeE4m3(activationPattern()).map((value) => value / DEVIATION))
  return pattern
}

/** What ropeStoreKv takes of some tokens: a projection's output of about 1, post-RoPE scales of 1, and where they go. */
export class StoreInputs implements Disposable {
  readonly #buffers: readonly CudaBuffer[]

  private constructor(
    readonly counts: HeadCounts,
    readonly tokens: number,
    readonly qkv: CudaBuffer,
    readonly positions: CudaBuffer,
    readonly slots: CudaBuffer,
    readonly inverseFrequencies: CudaBuffer,
    readonly q: CudaBuffer,
    readonly qScale: CudaBuffer,
    readonly scale: CudaBuffer,
  ) {
    this.#buffers = [qkv, positions, slots, inverseFrequencies, q, qScale, scale]
  }

  static async create(stream: CudaStream, counts: HeadCounts, tokens: number): Promise<StoreInputs> {
    const { heads, keyHeads } = counts
    const width = (heads + 2 * keyHeads) * HEAD_DIM
    const sizes = [
      tokens * width * 2,
      tokens * 4,
      tokens * 4,
      HEAD_DIM * 2,
      tokens * heads * HEAD_DIM,
      tokens * heads * 4,
      keyHeads * HEAD_DIM * 4,
    ]
    const buffers = sizes.map((bytes) => stream.allocate(bytes, `bench of attention: ${tokens} tokens to store`))
    const [qkv, positions, slots, inverseFrequencies, q, qScale, scale] = buffers as [
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
    ]
    await uploadRepeated(stream, qkv, projectionPattern())
    await stream.upload(inverseFrequencies, INVERSE_FREQUENCIES, 'bench: inverse frequencies')
    await stream.upload(scale, new Float32Array(keyHeads * HEAD_DIM).fill(1), 'bench: post-RoPE scales')
    const made = new StoreInputs(counts, tokens, qkv, positions, slots, inverseFrequencies, q, qScale, scale)
    await made.place(
      stream,
      Int32Array.from({ length: tokens }, (_, t) => t),
      Int32Array.from({ length: tokens }, (_, t) => t),
    )
    return made
  }

  async place(stream: CudaStream, positions: Int32Array, slots: Int32Array): Promise<void> {
    await stream.upload(this.positions, positions, 'bench: positions')
    await stream.upload(this.slots, slots, 'bench: slots')
  }

  store(stream: CudaStream, cache: CudaKvCache, layer: number, tokens: number = this.tokens): void {
    const { qkv, positions, slots, inverseFrequencies, q, qScale, scale, counts } = this
    const scales = { keyScale: scale, queryScale: scale }
    const operands = { qkv, positions, slots, inverseFrequencies, q, qScale, ...scales }
    ropeStoreKv(stream, { cache, layer, numAttentionHeads: counts.heads, tokens, ...operands })
  }

  [Symbol.dispose](): void {
    for (const buffer of this.#buffers) buffer.dispose()
  }
}

export function createCache(
  device: CudaDevice,
  stream: CudaStream,
  { keyHeads }: HeadCounts,
  format: Format,
  numLayers: number,
  pages: number,
): CudaKvCache {
  const spec = { numLayers, numKeyValueHeads: keyHeads, headDim: HEAD_DIM, format: cacheFormat(format) }
  return CudaKvCache.create(device, stream, spec, { pages })
}

export function cacheFormat(format: Format): KvFormat {
  const symmetric = format === 'symmetric'
  return { dtype: 'int4', symmetric, scale: symmetric ? 'bf16' : 'e4m3' }
}

/** Where sequences of these lengths lie: their pages all over the cache. */
export function layOut(lengths: readonly number[]): { readonly pages: number; readonly pagesOf: readonly number[][] } {
  const counts = lengths.map((length) => Math.ceil(length / PAGE_TOKENS))
  const used = counts.reduce((sum, count) => sum + count, 0)
  const pages = used % STRIDE === 0 ? used + 1 : used
  let at = 0
  const pagesOf = counts.map((count) => Array.from({ length: count }, () => (at++ * STRIDE) % pages))
  return { pages, pagesOf }
}

/** A cache whose layers all hold sequences of these lengths. */
export async function fillCache(
  device: CudaDevice,
  stream: CudaStream,
  counts: HeadCounts,
  format: Format,
  lengths: readonly number[],
  layers: number,
): Promise<CudaKvCache> {
  const { pages, pagesOf } = layOut(lengths)
  const cache = createCache(device, stream, counts, format, layers, pages)
  using inputs = await StoreInputs.create(stream, counts, PART)
  const [positions, slots] = [new Int32Array(PART), new Int32Array(PART)]
  let filled = 0
  const flush = async (): Promise<void> => {
    if (filled === 0) return
    await inputs.place(stream, positions, slots)
    for (let layer = 0; layer < layers; layer++) inputs.store(stream, cache, layer, filled)
    filled = 0
  }
  for (const [s, length] of lengths.entries()) {
    for (let t = 0; t < length; t++) {
      positions[filled] = t
      slots[filled++] = pagesOf[s]![Math.floor(t / PAGE_TOKENS)]! * PAGE_TOKENS + (t % PAGE_TOKENS)
      if (filled === PART) await flush()
    }
  }
  await flush()
  await stream.synchronize()
  return cache
}

/** FP8 queries of about 1 with their scales, and room for what comes out. */
export async function createQueries(stream: CudaStream, { heads }: HeadCounts, rows: number): Promise<Queries> {
  const [q, qScale, out] = [heads * HEAD_DIM, heads * 4, heads * HEAD_DIM * 2].map((bytes) =>
    stream.allocate(rows * bytes, `bench of attention: ${rows} queries`),
  ) as [CudaBuffer, CudaBuffer, CudaBuffer]
  await uploadRepeated(stream, q, activationPattern())
  await stream.upload(qScale, new Float32Array(rows * heads).fill(1 / DEVIATION), 'bench: scales of queries')
  return { q, qScale, out }
}

export type Queries = Readonly<Record<'q' | 'qScale' | 'out', CudaBuffer>>
