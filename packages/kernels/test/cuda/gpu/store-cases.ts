import assert from 'node:assert/strict'
import { bf16BitsToF32, decodeE4m3, f32ToBf16Bits, roundBf16, roundE4m3 } from '@fireq/formats'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { CudaKvCache } from '../../../src/cuda/kv-cache.js'
import type { CudaBuffer } from '../../../src/cuda/resources.js'
import { ropeStoreKv } from '../../../src/cuda/rope-store-kv.js'
import type { CudaStream } from '../../../src/cuda/stream.js'
import { quantizeGroups } from '../../../src/ops/quantize-fp8.js'
import { roundKvGroup } from '../../../src/reference/kv-format.js'
import type { Random } from '../../conformance/random.js'
import { KvLayout, PAGE_TOKENS } from '../kv-layout.js'
import { cacheSpecOf, FORMATS, type FormatName } from './attention-problem.js'
import type { GpuCase } from './gpu-case.js'

const UNTOUCHED = 0xa5

interface StoreSpec {
  readonly format: FormatName
  readonly headDim: number
  readonly heads: number
  readonly keyHeads: number
  readonly tokens: number
  readonly scaled?: boolean
  readonly adversarial?: boolean
  /** Every so manieth token isn't stored. */
  readonly skips?: number
  /** Tokens follow each other in the cache from this slot on; default: they lie all over it. */
  readonly firstSlot?: number
  /** Llama 3.1's frequencies. */
  readonly llama31?: boolean
}

interface StoreProblem extends StoreSpec {
  readonly pages: number
  readonly qkv: Uint16Array
  readonly positions: Int32Array
  readonly slots: Int32Array
  readonly inverseFrequencies: Float32Array
  readonly keyScale: Float32Array | undefined
  readonly queryScale: Float32Array | undefined
}

function makeStore(random: Random, spec: StoreSpec): StoreProblem {
  const { headDim: D, heads, keyHeads, tokens, scaled = false, adversarial = false, skips = 0, firstSlot } = spec
  const width = (heads + 2 * keyHeads) * D
  const values = Float32Array.from({ length: tokens * width }, () => random.normal())
  if (adversarial) {
    const rows: ((value: number, head: number, channel: number) => number)[] = [
      () => 0,
      (v, _, channel) => (channel === 17 ? 3e4 : v),
      (v, head) => (head % 2 === 0 ? 1e-39 : v),
      (v) => v * 1e-37,
      () => 1,
      (v, head, channel) => (head % 3 === 0 && channel === 5 ? Number.POSITIVE_INFINITY : v),
      (v, head, channel) => (head % 3 === 1 && channel === D - 28 ? Number.NaN : v),
      (v) => v * 1e36,
      (v, _, channel) => (channel % 5 === 0 ? -0 : v),
      (v, head) => (v * 2 ** ((head * 37) % 253)) / 2 ** 126,
    ]
    for (let i = 0; i < Math.min(tokens, 3 * rows.length) * width; i++) {
      const row = rows[Math.floor(i / width) % rows.length]!
      values[i] = row(values[i]!, Math.floor((i % width) / D), i % D)
    }
  }
  const pages = Math.ceil(tokens / PAGE_TOKENS) + 2
  const order = Array.from({ length: pages * PAGE_TOKENS }, (_, i) => i)
  const slots = (firstSlot === undefined ? random.shuffle(order) : order.slice(firstSlot)).slice(0, tokens)
  const keyScale = Float32Array.from({ length: keyHeads * D }, () => 2 ** (random.next() * 4 - 2))
  return {
    ...spec,
    pages,
    qkv: Uint16Array.from(values, f32ToBf16Bits),
    positions: Int32Array.from({ length: tokens }, () => random.int(0, 131071)),
    slots: Int32Array.from(slots, (slot, t) => (skips > 0 && t % skips === 0 ? -1 : slot)),
    inverseFrequencies: inverseFrequencies(D, spec.llama31),
    keyScale: scaled ? keyScale : undefined,
    queryScale: scaled ? keyScale.map((scale) => 1 / scale) : undefined,
  }
}

/** Llama 3's, and with Llama 3.1's scaling (factor 8, low 1, high 4, 8192 tokens). */
function inverseFrequencies(headDim: number, llama31 = false): Float32Array {
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = 500000 ** (-i / (headDim / 2))
    const smooth = Math.min(1, Math.max(0, ((8192 * frequency) / (2 * Math.PI) - 1) / 3))
    return llama31 ? frequency * (smooth + (1 - smooth) / 8) : frequency
  })
}

interface Stored {
  readonly q: Float32Array
  readonly qScale: Float32Array
  /** [tokens, keyHeads, headDim], what the cache is to give back. */
  readonly k: Float32Array
  readonly v: Float32Array
}

/** The ops step by step, each rounded to FP32 where the kernel has one rounding, then the reference's roundings. */
function expectedStore(p: StoreProblem): Stored {
  const { headDim: D, heads, keyHeads, tokens } = p
  const width = (heads + 2 * keyHeads) * D
  const x = Float32Array.from(p.qkv, bf16BitsToF32)
  for (let t = 0; t < tokens; t++) {
    for (let i = 0; i < D / 2; i++) {
      const angle = Math.fround(p.positions[t]! * p.inverseFrequencies[i]!)
      const [c, s] = [Math.fround(Math.cos(angle)), Math.fround(Math.sin(angle))]
      for (let head = 0; head < heads + keyHeads; head++) {
        const at = t * width + head * D + i
        const [a, b] = [x[at]!, x[at + D / 2]!]
        x[at] = a * c - Math.fround(b * s)
        x[at + D / 2] = b * c + Math.fround(a * s)
      }
    }
    for (let i = 0; i < (heads + keyHeads) * D && p.keyScale !== undefined; i++) {
      const head = Math.floor(i / D)
      const isKey = head >= heads
      const keyHead = isKey ? head - heads : Math.floor(head / (heads / keyHeads))
      x[t * width + i]! *= (isKey ? p.keyScale : p.queryScale!)[keyHead * D + (i % D)]!
    }
  }
  const part = (from: number, count: number): Float32Array => {
    const result = new Float32Array(tokens * count * D)
    for (let t = 0; t < tokens; t++) {
      result.set(x.subarray(t * width + from * D, t * width + (from + count) * D), t * count * D)
    }
    return result
  }
  const [q, qScale] = [new Float32Array(tokens * heads * D), new Float32Array(tokens * heads)]
  quantizeGroups(part(0, heads), D, q, qScale)
  const format = FORMATS[p.format]
  const rounded = (values: Float32Array): Float32Array => {
    const result = new Float32Array(values.length)
    for (let at = 0; at < values.length; at += D) {
      const [x, out] = [values.subarray(at, at + D), result.subarray(at, at + D)]
      if (format.dtype === 'e4m3') roundE4m3Vector(x, out)
      else roundKvGroup(x, format, out)
    }
    return result
  }
  return { q, qScale, k: rounded(part(heads, keyHeads)), v: rounded(part(heads + keyHeads, keyHeads)) }
}

/** σ = BF16(max|x| / 448), 2⁻¹²⁶ at least; σ · E4M3(x / σ). */
function roundE4m3Vector(x: Float32Array, out: Float32Array): void {
  const most = x.reduce((most, v) => Math.max(most, Math.abs(v)), 0) // NaN if there is one
  const scale = most < Number.POSITIVE_INFINITY ? Math.max(roundBf16(Math.fround(most / 448)), 2 ** -126) : Number.NaN
  for (let i = 0; i < x.length; i++) out[i] = scale * roundE4m3(Math.fround(x[i]! / scale))
}

interface Found {
  readonly q: Uint8Array
  readonly qScale: Float32Array
  readonly cache: Uint8Array
}

async function store(device: CudaDevice, stream: CudaStream, p: StoreProblem): Promise<Found> {
  const made: CudaBuffer[] = []
  const allocate = (bytes: number): CudaBuffer => {
    made.push(stream.allocate(bytes, 'test'))
    return made.at(-1)!
  }
  const put = async (values: Uint16Array | Int32Array | Float32Array): Promise<CudaBuffer> => {
    const buffer = allocate(values.byteLength)
    await stream.upload(buffer, values, 'test')
    return buffer
  }
  const { headDim, heads, tokens, pages, keyScale, queryScale } = p
  const cache = CudaKvCache.create(device, stream, cacheSpecOf(p.keyHeads, p.format, headDim), { pages })
  try {
    const layer = cache.layer(0, 'test')
    const [q, qScale] = [allocate(tokens * heads * headDim), allocate(tokens * heads * 4)]
    for (const buffer of [layer, q, qScale]) stream.fill(buffer, UNTOUCHED, 'test')
    const scales = keyScale && queryScale && { keyScale: await put(keyScale), queryScale: await put(queryScale) }
    const op = {
      cache,
      layer: 0,
      numAttentionHeads: heads,
      tokens,
      qkv: await put(p.qkv),
      positions: await put(p.positions),
      slots: await put(p.slots),
      inverseFrequencies: await put(p.inverseFrequencies),
      q,
      qScale,
      ...scales,
    }
    ropeStoreKv(stream, op)
    ropeStoreKv(stream, { ...op, dependent: true }) // the same again changes nothing
    return {
      q: await stream.download(q, new Uint8Array(q.bytes), 'q'),
      qScale: await stream.download(qScale, new Float32Array(qScale.bytes / 4), 'qScale'),
      cache: await stream.download(layer, new Uint8Array(layer.bytes), 'cache'),
    }
  } finally {
    cache.dispose()
    for (const buffer of made) buffer.dispose()
  }
}

function compareStore(what: string, p: StoreProblem, { q, qScale, cache }: Found): void {
  const { headDim: D } = p
  const expected = expectedStore(p)
  const same = (a: number, b: number): boolean => a === b || (Number.isNaN(a) && Number.isNaN(b))
  qScale.forEach((scale, i) => {
    assert.ok(same(scale, expected.qScale[i]!), `${what}: qScale[${i}] is ${scale}, not ${expected.qScale[i]}`)
  })
  decodeE4m3(q).forEach((value, i) => {
    if (expected.qScale[Math.floor(i / D)] === Number.POSITIVE_INFINITY) return // scaled back, all is NaN
    const wanted = expected.q[i]!
    assert.ok(
      same(value, wanted) && Object.is(value, -0) === Object.is(wanted, -0),
      `${what}: q[${i}] is ${value}, not ${wanted}`,
    )
  })
  const written = new Set(p.slots)
  const layout = new KvLayout(FORMATS[p.format], D)
  for (let slot = 0; slot < p.pages * PAGE_TOKENS; slot++) {
    const token = p.slots.indexOf(slot)
    for (let head = 0; head < p.keyHeads; head++) {
      const at = (Math.floor(slot / PAGE_TOKENS) * p.keyHeads + head) * layout.pageBytes
      for (const side of ['key', 'value'] as const) {
        const vector = layout.read(cache.subarray(at, at + layout.pageBytes), side, slot % PAGE_TOKENS)
        const name = `${what}: ${side} of slot ${slot}, head ${head}`
        if (!written.has(slot)) {
          const left = [5, 10, UNTOUCHED, UNTOUCHED * 257]
          const isLeft = vector.codes.every((code) => left.includes(code))
          assert.ok(isLeft && vector.scaleBytes.every((byte) => byte === UNTOUCHED), `${name} was written`)
          continue
        }
        layout.valuesOf(vector).forEach((value, i) => {
          const wanted = expected[side === 'key' ? 'k' : 'v'][(token * p.keyHeads + head) * D + i]!
          assert.ok(same(value, wanted), `${name}, channel ${i} is ${value}, not ${wanted}`)
        })
      }
    }
  }
}

const specs: readonly Omit<StoreSpec, 'format' | 'headDim'>[] = [
  { tokens: 1, heads: 32, keyHeads: 8 },
  { tokens: 333, heads: 32, keyHeads: 8, skips: 7 },
  { tokens: 130, heads: 32, keyHeads: 8, scaled: true, firstSlot: 1, llama31: true },
  { tokens: 259, heads: 32, keyHeads: 8, scaled: true, firstSlot: 2, skips: 13 },
  { tokens: 64, heads: 32, keyHeads: 32, scaled: true, firstSlot: 0 },
  { tokens: 50, heads: 6, keyHeads: 2 },
  { tokens: 90, heads: 7, keyHeads: 1, firstSlot: 62 },
  { tokens: 801, heads: 2, keyHeads: 1, llama31: true },
]

export async function checkStore(device: CudaDevice, random: Random, spec: StoreSpec): Promise<void> {
  using stream = device.createStream()
  const problem = makeStore(random, spec)
  const { tokens, headDim, heads, keyHeads, format } = spec
  const found = await store(device, stream, problem)
  compareStore(`${tokens} tokens, ${heads}/${keyHeads} heads of ${headDim}, ${format}`, problem, found)
}

export const storeCases: readonly GpuCase[] = (Object.keys(FORMATS) as FormatName[]).flatMap((format) => {
  const run = (device: CudaDevice, random: Random, spec: Omit<StoreSpec, 'format'>) =>
    checkStore(device, random, { ...spec, format })
  return [64, 128].flatMap((headDim) => [
    {
      name: `rotates, scales, quantizes and stores as the reference does, code by code, ${format}, heads of ${headDim}`,
      async run(device: CudaDevice, random: Random) {
        for (const spec of specs) await run(device, random, { ...spec, headDim })
      },
    },
    {
      name: `stores zeros, subnormals, infinities, NaNs and huge channels as the reference does, ${format}, heads of ${headDim}`,
      async run(device: CudaDevice, random: Random) {
        for (const scaled of [false, true]) {
          for (const firstSlot of [undefined, 2]) {
            const slots = firstSlot === undefined ? {} : { firstSlot }
            await run(device, random, {
              tokens: 60,
              headDim,
              heads: 12,
              keyHeads: 4,
              scaled,
              adversarial: true,
              ...slots,
            })
          }
        }
      },
    },
  ])
})
