import assert from 'node:assert/strict'
import { bf16BitsToF32, f32ToBf16Bits, f32ToE4m3Bits } from '@fireq/formats'
import type { CudaKvCache, CudaKvCacheSpec, CudaKvFormat } from '../../../src/cuda/kv-cache.js'
import { ReferenceBackend } from '../../../src/index.js'
import { quantizeGroups } from '../../../src/ops/quantize-fp8.js'
import { KvCacheStorage } from '../../../src/reference/kv-cache.js'
import { singleOp } from '../../conformance/op-case.js'
import type { Random } from '../../conformance/random.js'
import { KvLayout, PAGE_TOKENS, type Side, type StoredVector } from '../kv-layout.js'

/** What a cache may hold, by the names of tests. */
export const FORMATS = {
  symmetric: { dtype: 'int4', symmetric: true, scale: 'bf16' },
  asymmetric: { dtype: 'int4', symmetric: false, scale: 'e4m3' },
  e4m3: { dtype: 'e4m3' },
  bf16: { dtype: 'bf16' },
} as const satisfies Record<string, CudaKvFormat>
export type FormatName = keyof typeof FORMATS

export interface AttentionSpec {
  readonly format: FormatName
  /** Default: 128. */
  readonly headDim?: number
  readonly heads: number
  readonly keyHeads: number
  readonly sequences: readonly { readonly length: number; readonly newTokens: number }[]
  /** Growing keys: every tile has larger scores than those before. */
  readonly kind?: 'random' | 'equal keys' | 'huge token' | 'huge channel' | 'growing keys'
}

/** Sequences in pages in random order; codes and scales of tokens that none has are poison. */
export interface AttentionProblem extends AttentionSpec {
  readonly cacheSpec: CudaKvCacheSpec
  readonly pages: number
  readonly pagesOf: readonly (readonly number[])[]
  /** [pages, keyHeads, pageBytes] */
  readonly cache: Uint8Array
  /** What the cache's codes mean, for the reference's op; and the size of values, for bounds: |v|, in INT4 + σ / 4. */
  readonly exact: KvCacheStorage
  readonly sizes: KvCacheStorage
  /** |key| and |value| at most, zero points included. */
  readonly largest: { readonly key: number; readonly value: number }
  /** New tokens, sequence after sequence. */
  readonly rows: number
  /** E4M3 as numbers [rows, heads · headDim], and [rows, heads]. */
  readonly q: Float32Array
  readonly qScale: Float32Array
}

export function cacheSpecOf(keyHeads: number, format: FormatName, headDim = 128): CudaKvCacheSpec {
  return { numLayers: 1, numKeyValueHeads: keyHeads, headDim, format: FORMATS[format] }
}

export function describeAttention(spec: AttentionSpec): string {
  const { format, headDim = 128, heads, keyHeads, sequences, kind = 'random' } = spec
  const lengths = sequences.map(({ length, newTokens }) => `${newTokens} of ${length}`).join(', ')
  return `${format}, ${heads}/${keyHeads} heads of ${headDim}, ${kind}: new tokens ${lengths}`
}

export function makeAttention(random: Random, spec: AttentionSpec): AttentionProblem {
  const { format, headDim = 128, heads, keyHeads, sequences, kind = 'random' } = spec
  const layout = new KvLayout(FORMATS[format], headDim)
  const { pageBytes } = layout
  const needed = sequences.map(({ length }) => Math.ceil(length / PAGE_TOKENS))
  const pages = needed.reduce((sum, count) => sum + count, 0) + 3
  const order = random.shuffle(Array.from({ length: pages }, (_, i) => i))
  const pagesOf = needed.map((count) => order.splice(0, count))
  const cache = new Uint8Array(pages * keyHeads * pageBytes).fill(0xff) // NaN scales, codes and numbers, zero points of 255
  const [exact, sizes] = [storage(keyHeads, headDim, pages), storage(keyHeads, headDim, pages)]
  const largest = { key: 0, value: 0 }
  sequences.forEach(({ length }, s) => {
    for (let position = 0; position < length; position++) {
      const page = pagesOf[s]![Math.floor(position / PAGE_TOKENS)]!
      const place = position % PAGE_TOKENS
      for (let head = 0; head < keyHeads; head++) {
        const at = (page * keyHeads + head) * pageBytes
        for (const side of ['key', 'value'] as const) {
          const vector = makeVector(random, layout, side, position, kind)
          layout.write(cache.subarray(at, at + pageBytes), side, place, vector)
          const values = layout.valuesOf(vector)
          const isInt4 = layout.codeBits === 4
          const { scale } = layout.scaleOf(vector.scaleBytes)
          const most = isInt4 ? 15 * scale : values.reduce((most, v) => Math.max(most, Math.abs(v)), 0)
          largest[side] = Math.max(largest[side], most)
          const slot = page * PAGE_TOKENS + place
          exact.write(side, 0, slot, head, values)
          sizes.write(
            side,
            0,
            slot,
            head,
            side === 'key' ? values : values.map((v) => Math.abs(v) + (isInt4 ? scale / 4 : 0)),
          )
        }
      }
    }
  })
  const rows = sequences.reduce((sum, { newTokens }) => sum + newTokens, 0)
  const [q, qScale] = [new Float32Array(rows * heads * headDim), new Float32Array(rows * heads)]
  quantizeGroups(
    Float32Array.from(q, () => random.normal()),
    headDim,
    q,
    qScale,
  )
  const cacheSpec = cacheSpecOf(keyHeads, format, headDim)
  return { ...spec, cacheSpec, pages, pagesOf, cache, exact, sizes, largest, rows, q, qScale }
}

/** `old` where what new tokens' keys and values mean is `chunk`'s, a problem of the same sequences and heads. */
export function withNewTokensOf(chunk: AttentionProblem, old: AttentionProblem): AttentionProblem {
  const vector = new Float32Array(old.cacheSpec.headDim)
  old.sequences.forEach(({ length, newTokens }, s) => {
    for (let position = length - newTokens; position < length; position++) {
      const slotOf = ({ pagesOf }: AttentionProblem) =>
        pagesOf[s]![Math.floor(position / PAGE_TOKENS)]! * PAGE_TOKENS + (position % PAGE_TOKENS)
      for (const name of ['exact', 'sizes'] as const) {
        for (const side of ['key', 'value'] as const) {
          for (let head = 0; head < old.keyHeads; head++) {
            chunk[name].read(side, 0, slotOf(chunk), head, vector)
            old[name].write(side, 0, slotOf(old), head, vector)
          }
        }
      }
    }
  })
  const key = Math.max(old.largest.key, chunk.largest.key)
  return { ...old, largest: { key, value: Math.max(old.largest.value, chunk.largest.value) } }
}

/** Codes of a token and head, with its scale. */
function makeVector(random: Random, layout: KvLayout, side: Side, position: number, kind: string): StoredVector {
  const { codeBits, headDim, format } = layout
  const isHuge = kind === 'huge token' && position === (side === 'key' ? 5 : 9)
  const growth = kind === 'growing keys' && side === 'key' ? 1 + position / 64 : 1
  const size = (0.05 + 0.2 * random.next()) * (isHuge ? 200 : growth)
  const hugeChannel = side === 'key' ? 3 : headDim - 58
  const areEqual = kind === 'equal keys' && side === 'key'
  // Baselines' numbers are as large as INT4's.
  const codeOf = (number: number): number => {
    if (codeBits === 4) return Math.min(15, Math.max(0, Math.round(number + 8)))
    return codeBits === 8 ? f32ToE4m3Bits(number * 32) : f32ToBf16Bits(number * size)
  }
  const numbers = Array.from({ length: headDim }, () => (areEqual ? 3 : random.int(0, 15) - 8 + 0.3 * random.next()))
  const codes = Uint16Array.from(numbers, codeOf)
  if (kind === 'huge channel') codes[hugeChannel] = codeOf(codeBits === 4 ? 7 : 14)
  const bits = f32ToBf16Bits(codeBits === 8 ? size / 32 : size)
  const isAsymmetric = format.dtype === 'int4' && !format.symmetric
  const scaleBytes = isAsymmetric
    ? Uint8Array.of(f32ToE4m3Bits(size), random.int(5, 11))
    : Uint8Array.of(bits & 255, bits >> 8)
  return { codes, scaleBytes }
}

/** A cache of the reference backend that keeps numbers as they are. */
function storage(keyHeads: number, headDim: number, pages: number): KvCacheStorage {
  return new KvCacheStorage(
    { numLayers: 1, numKeyValueHeads: keyHeads, headDim, format: { dtype: 'f32' } },
    { pages, pageSize: PAGE_TOKENS },
  )
}

/** Keys and values of some slots as a device's cache has them now. */
export function storedIn(cache: CudaKvCache, bytes: Uint8Array, slots: Iterable<number>): KvCacheStorage {
  const { numKeyValueHeads, headDim, format } = cache.spec
  const result = storage(numKeyValueHeads, headDim, cache.pages)
  const layout = new KvLayout(format, headDim)
  for (const slot of slots) {
    for (let head = 0; head < numKeyValueHeads; head++) {
      const at = (Math.floor(slot / PAGE_TOKENS) * numKeyValueHeads + head) * layout.pageBytes
      for (const side of ['key', 'value'] as const) {
        const vector = layout.read(bytes.subarray(at, at + layout.pageBytes), side, slot % PAGE_TOKENS)
        result.write(side, 0, slot, head, layout.valuesOf(vector))
      }
    }
  }
  return result
}

/** The reference backend's op on such a cache: [rows, heads · headDim]. */
async function referenceAttention(
  kv: KvCacheStorage,
  {
    headDim: D = 128,
    heads,
    keyHeads,
    sequences,
    pagesOf,
    q,
    qScale,
  }: Omit<AttentionProblem, 'exact' | 'sizes' | 'cache'>,
): Promise<Float32Array> {
  const columns = Math.max(1, ...pagesOf.map((pages) => pages.length))
  const pageTable = new Int32Array(sequences.length * columns)
  for (const [s, pages] of pagesOf.entries()) pageTable.set(pages, s * columns)
  let end = 0
  const queryEnds = Int32Array.from(sequences, ({ newTokens }) => {
    end += newTokens
    return end
  })
  if (end === 0) return new Float32Array(0)
  const { program } = singleOp('attention', {
    inputs: {
      q: ['e4m3', 'tokens', heads * D],
      qScale: ['f32', 'tokens', heads],
      queryEnds: ['i32', 'sequences'],
      contextLengths: ['i32', 'sequences'],
      pageTable: ['i32', 'sequences', 'pages'],
    },
    outputs: { out: ['f32', 'tokens', heads * D] },
    attrs: { layer: 0, numAttentionHeads: heads, softmaxScale: D ** -0.5, probabilities: 'f32' },
    kv: { numLayers: 1, numKeyValueHeads: keyHeads, headDim: D, format: { dtype: 'f32' } },
  })
  const contextLengths = Int32Array.from(sequences, ({ length }) => length)
  using backend = new ReferenceBackend()
  using weights = await backend.loadWeights({}, async (name) => assert.fail(name))
  using op = await backend.compile(program, weights)
  const { out } = await op.run({ q, qScale, queryEnds, contextLengths, pageTable }, { kv })
  return out as Float32Array
}

/** What a kernel's arithmetic may lose. */
export interface Losses {
  /** Of a probability, relative, and of the largest one. */
  readonly probability: number
  readonly floor: number
  /** Of a score, in parts of Σ|q| · the largest key. */
  readonly score: number
  /** ‖out − exact‖ / ‖exact‖ at most. */
  readonly relative: number
}

/** FP16 probabilities of at least 2⁻³⁸ of the largest, sums in FP32. Rounding to BF16 alone gives 0.0017. */
export const DECODE: Losses = { probability: 2 ** -10, floor: 2 ** -38, score: 2 ** -20, relative: 2.5e-3 }
/** BF16 probabilities, over a BF16 cache: 2⁻⁹ of each, and of the output, which few tokens may decide. */
export const DECODE_BF16: Losses = { probability: 2 ** -7, floor: 2 ** -100, score: 2 ** -20, relative: 2 ** -8 }
/**
 * E4M3 ones with their values' scales in them, 2⁵ or more at the largest, some of polynomials (1 % off at most); tensor cores keep 13
 * bits behind the point. That rounding alone gives 0.013 to 0.018 on these problems. Scores are FP16: rounded thrice, and once more
 * less their row's largest, 2⁻¹⁰ of themselves in all; E4M3 keys' smallest elements lose up to 2⁻¹⁰ of the largest.
 */
export const PREFILL: Losses = {
  probability: 2 ** -4 + 2 ** -6 + 2 ** -9,
  floor: 2 ** -15,
  score: 2 ** -10,
  relative: 2.4e-2,
}

/**
 * Compares BF16 rows with the reference, the values' sizes by the same op: the tolerance of an element is a rounding to BF16, and
 * what probabilities and scores may lose: an error δ of a score changes its probability by the factor e^δ.
 */
export async function compareAttention(
  what: string,
  actual: Uint16Array,
  problem: AttentionProblem,
  { probability, floor, score, relative }: Losses,
): Promise<void> {
  const [exact, sizes] = [
    await referenceAttention(problem.exact, problem),
    await referenceAttention(problem.sizes, problem),
  ]
  assert.equal(actual.length, exact.length, what)
  const { headDim: D = 128, heads, q, qScale, largest, sequences } = problem
  const longest = Math.max(...sequences.map(({ length }) => length))
  let [errors, squares] = [0, 0]
  for (let row = 0; row < qScale.length; row++) {
    let absolute = 0
    for (let i = 0; i < D; i++) absolute += Math.abs(q[row * D + i]!)
    const delta = score * absolute * qScale[row]! * D ** -0.5 * largest.key
    for (let at = row * D; at < (row + 1) * D; at++) {
      const [value, wanted] = [bf16BitsToF32(actual[at]!), exact[at]!]
      const lost = (probability + Math.expm1(2 * delta)) * sizes[at]! + longest * floor * largest.value
      const tolerance = Math.abs(wanted) * 2 ** -8 + lost
      const place = `[${Math.floor(row / heads)}, head ${row % heads}, ${at % D}]`
      assert.ok(Math.abs(value - wanted) <= tolerance, `${what}: ${place} is ${value}, not ${wanted} ± ${tolerance}`)
      errors += (value - wanted) ** 2
      squares += wanted ** 2
    }
  }
  const found = squares === 0 ? 0 : Math.sqrt(errors / squares)
  assert.ok(found <= relative, `${what}: relative error ${found}`)
}
