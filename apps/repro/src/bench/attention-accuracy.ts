import { bf16BitsToF32, decodeE4m3, f32ToBf16Bits } from '@fireq/formats'
import { type CudaBuffer, type CudaStream, roundKvGroup } from '@fireq/kernels'
import { cacheFormat, DEVIATION, type Format, HEAD_DIM, INVERSE_FREQUENCIES, PART } from './attention-cache.js'
import type { AttentionShape, HeadCounts } from './attention-shapes.js'
import { activationPattern, spread } from './linear-problem.js'

/** ‖out − exact‖ / ‖exact‖ on a sample of rows and heads; exact: float64 attention of the same queries. */
export interface AttentionErrors {
  /** On keys and values as the cache holds them: the kernel's own error. */
  readonly kernel: number
  /** On keys and values before they were rounded to INT4. */
  readonly total: number
}

const SEQUENCES = 2
const ROWS = 4
const HEADS_OF_GROUP = 2

/** Of what an attention left in `out`, BF16 [rows, heads, 128], from createQueries and fillCache. */
export async function attentionErrors(
  stream: CudaStream,
  { kind, lengths }: AttentionShape,
  counts: HeadCounts,
  format: Format,
  out: CudaBuffer,
): Promise<AttentionErrors> {
  const keyHead = counts.keyHeads - 1
  const group = counts.heads / counts.keyHeads
  const heads = spread(group, HEADS_OF_GROUP).map((head) => keyHead * group + head)
  const kernel = new RelativeError()
  const total = new RelativeError()
  for (const s of spread(lengths.length, SEQUENCES)) {
    const before = lengths.slice(0, s).reduce((sum, length) => sum + length, 0)
    const given = keysAndValues(counts, keyHead, before, lengths[s]!)
    const held = given.map((vectors) => roundVectors(vectors, format)) as unknown as KeysAndValues
    // In a prefill a sequence's token sees itself and those before it.
    const rows =
      kind === 'decode'
        ? [{ row: s, sees: lengths[s]! }]
        : spread(lengths[s]!, ROWS).map((t) => ({ row: before + t, sees: t + 1 }))
    for (const { row, sees } of rows) {
      for (const head of heads) {
        const at = (row * counts.heads + head) * HEAD_DIM
        const found = await stream.download(out, new Uint16Array(HEAD_DIM), 'bench: out', at * 2)
        kernel.add(found, attend(query(at), held, sees))
        total.add(found, attend(query(at), given, sees))
      }
    }
  }
  return { kernel: kernel.value, total: total.value }
}

class RelativeError {
  #errors = 0
  #squares = 0

  add(found: Uint16Array, exact: Float64Array): void {
    exact.forEach((value, i) => {
      this.#errors += (bf16BitsToF32(found[i]!) - value) ** 2
      this.#squares += value ** 2
    })
  }

  get value(): number {
    return Math.sqrt(this.#errors / this.#squares)
  }
}

/** [tokens, 128] each. */
type KeysAndValues = readonly [keys: Float32Array, values: Float32Array]

/** Those of one head that the store kernel is given, keys turned, each step rounded to FP32 as it does. */
function keysAndValues(
  { heads, keyHeads }: HeadCounts,
  keyHead: number,
  before: number,
  tokens: number,
): KeysAndValues {
  const width = (heads + 2 * keyHeads) * HEAD_DIM
  const projected = projection()
  const [keys, values] = [new Float32Array(tokens * HEAD_DIM), new Float32Array(tokens * HEAD_DIM)]
  const { cosines, sines } = turns(tokens)
  const half = HEAD_DIM / 2
  for (let t = 0; t < tokens; t++) {
    const row = ((before + t) % PART) * width
    const [ofKey, ofValue] = [row + (heads + keyHead) * HEAD_DIM, row + (heads + keyHeads + keyHead) * HEAD_DIM]
    const at = t * HEAD_DIM
    for (let i = 0; i < half; i++) {
      const [a, b] = [projected[(ofKey + i) % projected.length]!, projected[(ofKey + half + i) % projected.length]!]
      const [c, s] = [cosines[t * half + i]!, sines[t * half + i]!]
      keys[at + i] = a * c - Math.fround(b * s)
      keys[at + half + i] = b * c + Math.fround(a * s)
    }
    for (let i = 0; i < HEAD_DIM; i++) values[at + i] = projected[(ofValue + i) % projected.length]!
  }
  return [keys, values]
}

let projectionValues: Float32Array | undefined

/** The repeating part of a projection's output, as numbers. */
function projection(): Float32Array {
  projectionValues ??= decodeE4m3(activationPattern()).map((value) => bf16BitsToF32(f32ToBf16Bits(value / DEVIATION)))
  return projectionValues
}

let table = { tokens: 0, cosines: new Float32Array(0), sines: new Float32Array(0) }

/** cos and sin [tokens at least, 64]. */
function turns(tokens: number): typeof table {
  if (table.tokens >= tokens) return table
  const pairs = HEAD_DIM / 2
  const [cosines, sines] = [new Float32Array(tokens * pairs), new Float32Array(tokens * pairs)]
  for (let at = 0; at < tokens * pairs; at++) {
    const angle = Math.fround(Math.floor(at / pairs) * INVERSE_FREQUENCIES[at % pairs]!)
    cosines[at] = Math.cos(angle)
    sines[at] = Math.sin(angle)
  }
  table = { tokens, cosines, sines }
  return table
}

function roundVectors(vectors: Float32Array, format: Format): Float32Array {
  const result = new Float32Array(vectors.length)
  for (let at = 0; at < vectors.length; at += HEAD_DIM) {
    roundKvGroup(vectors.subarray(at, at + HEAD_DIM), cacheFormat(format), result.subarray(at, at + HEAD_DIM))
  }
  return result
}

/** createQueries' numbers from an element of q on. */
function query(at: number): Float32Array {
  const codes = activationPattern()
  const scale = Math.fround(1 / DEVIATION)
  return decodeE4m3(Uint8Array.from({ length: HEAD_DIM }, (_, i) => codes[(at + i) % codes.length]!)).map(
    (value) => value * scale,
  )
}

/** softmax(q · keysᵀ / √128) · values over the first `sees` tokens. */
function attend(q: Float32Array, [keys, values]: KeysAndValues, sees: number): Float64Array {
  const scores = new Float64Array(sees)
  let most = Number.NEGATIVE_INFINITY
  for (let t = 0; t < sees; t++) {
    let sum = 0
    for (let i = 0; i < HEAD_DIM; i++) sum += q[i]! * keys[t * HEAD_DIM + i]!
    scores[t] = sum / Math.sqrt(HEAD_DIM)
    most = Math.max(most, scores[t]!)
  }
  const out = new Float64Array(HEAD_DIM)
  let weights = 0
  for (let t = 0; t < sees; t++) {
    const weight = Math.exp(scores[t]! - most)
    weights += weight
    for (let i = 0; i < HEAD_DIM; i++) out[i]! += weight * values[t * HEAD_DIM + i]!
  }
  return out.map((sum) => sum / weights)
}
