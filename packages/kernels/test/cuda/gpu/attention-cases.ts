import assert from 'node:assert/strict'
import { decodeE4m3, f32ToBf16Bits } from '@fireq/formats'
import { attendDecode, attendPrefill } from '../../../src/cuda/attention.js'
import { DecodeBatch } from '../../../src/cuda/decode-batch.js'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { CudaKvCache } from '../../../src/cuda/kv-cache.js'
import { PrefillBatch } from '../../../src/cuda/prefill-batch.js'
import { ropeStoreKv } from '../../../src/cuda/rope-store-kv.js'
import type { CudaStream } from '../../../src/cuda/stream.js'
import type { Random } from '../../conformance/random.js'
import { OnDevice } from './attention-on-device.js'
import {
  type AttentionSpec,
  cacheSpecOf,
  compareAttention,
  DECODE,
  DECODE_BF16,
  describeAttention,
  type FormatName,
  makeAttention,
  PREFILL,
  storedIn,
  withNewTokensOf,
} from './attention-problem.js'
import type { GpuCase } from './gpu-case.js'

const D = 128

export interface PrefillSpec extends AttentionSpec {
  readonly multiprocessors?: number
}

export async function checkPrefill(device: CudaDevice, random: Random, spec: PrefillSpec): Promise<void> {
  const problem = makeAttention(random, spec)
  const what = describeAttention(spec)
  using stream = device.createStream()
  using on = await OnDevice.create(device, stream, problem)
  using batch = await PrefillBatch.create(stream, on.cache, {
    sequences: on.sequences,
    numAttentionHeads: spec.heads,
    ...(spec.multiprocessors && { multiprocessors: spec.multiprocessors }),
  })
  poisonTiles(stream, batch)
  const { q, qScale, out } = on
  const attend = (dependent: boolean) => attendPrefill(stream, { batch, layer: 0, q, qScale, out, dependent })
  const first = await on.run(() => attend(false))
  await compareAttention(what, first, problem, spec.format === 'bf16' ? DECODE_BF16 : PREFILL)
  assert.deepEqual(await on.run(() => attend(false)), first, `${what}: other bits the second time`)
  assert.deepEqual(await on.run(() => attend(true)), first, `${what}: other bits when started early`)
  using graph = stream.capture(() => attend(true))
  assert.deepEqual(await on.run(() => stream.replay(graph, 'prefill')), first, `${what}: other bits in a graph`)
}

/** What of its tiles isn't written is NaN. (compute-sanitizer's initcheck doesn't see that bulk copies write them.) */
function poisonTiles(stream: CudaStream, { tables }: PrefillBatch): void {
  if (tables.decoded.bytes > 0) stream.fill(tables.decoded, 0xff, 'poison')
}

/** New tokens from an E4M3 cache. */
export async function checkChunk(device: CudaDevice, random: Random, spec: AttentionSpec): Promise<void> {
  const [old, fresh] = [makeAttention(random, spec), makeAttention(random, { ...spec, format: 'e4m3' })]
  const what = `${describeAttention(spec)}, new ones in E4M3`
  using stream = device.createStream()
  using on = await OnDevice.create(device, stream, old)
  using chunk = CudaKvCache.create(device, stream, fresh.cacheSpec, { pages: fresh.pages })
  await stream.upload(chunk.layer(0, 'test'), fresh.cache, 'chunk')
  const sequences = on.sequences.map((sequence, s) => {
    const first = Math.floor((sequence.length - sequence.newTokens) / 64)
    return { ...sequence, chunkPages: fresh.pagesOf[s]!.slice(first) }
  })
  using batch = await PrefillBatch.create(stream, on.cache, { sequences, numAttentionHeads: spec.heads, chunk })
  poisonTiles(stream, batch)
  const { q, qScale, out } = on
  const found = await on.run(() => attendPrefill(stream, { batch, layer: 0, q, qScale, out, dependent: true }))
  await compareAttention(what, found, withNewTokensOf(fresh, old), PREFILL)
}

const grouped = { heads: 8, keyHeads: 2 }
const kinds = ['equal keys', 'huge token', 'huge channel', 'growing keys'] as const
export const news = (...pairs: readonly (readonly [length: number, newTokens: number])[]) =>
  pairs.map(([length, newTokens]) => ({ length, newTokens }))

const prefilled = (['symmetric', 'asymmetric', 'e4m3', 'bf16'] as const).flatMap((format) =>
  [128, 64].map((headDim) => ({ format, headDim })),
)

export const attentionCases: readonly GpuCase[] = [
  ...prefilled.flatMap(({ format, headDim }): GpuCase[] => {
    const shape = { format, headDim }
    return [
      {
        name: `prefill agrees with the reference for lengths around tiles and pages, and over prefixes, ${format}, heads of ${headDim}`,
        async run(device, random) {
          const cases = [
            news([1, 1]),
            news([128, 128]),
            news([129, 129], [63, 63], [64, 64], [65, 65], [2, 2]),
            news([200, 200], [1, 1], [65, 3], [50, 0], [300, 128], [257, 100], [1000, 77]),
            news([0, 0], [400, 400]),
          ]
          for (const sequences of cases) await checkPrefill(device, random, { ...shape, ...grouped, sequences })
        },
      },
      {
        name: `prefill agrees with the reference for every size of groups, ${format}, heads of ${headDim}`,
        async run(device, random) {
          for (const [heads, keyHeads] of [
            [4, 4],
            [32, 2],
            [7, 1],
          ] as const) {
            await checkPrefill(device, random, { ...shape, heads, keyHeads, sequences: news([260, 200], [40, 40]) })
          }
        },
      },
      {
        name: `prefill agrees with the reference on one huge token, one huge channel, equal and growing keys, ${format}, heads of ${headDim}`,
        async run(device, random) {
          for (const kind of kinds) {
            await checkPrefill(device, random, { ...shape, ...grouped, sequences: news([380, 380], [70, 70]), kind })
          }
        },
      },
    ]
  }),
  ...prefilled
    .filter(({ format }) => format === 'symmetric' || format === 'asymmetric')
    .map(
      (shape): GpuCase => ({
        name: `prefill takes new tokens from an E4M3 cache, ${shape.format}, heads of ${shape.headDim}`,
        async run(device, random) {
          const sequences = news([300, 140], [70, 6], [129, 1], [50, 0], [64, 64], [257, 100], [330, 10])
          await checkChunk(device, random, { ...shape, ...grouped, sequences })
        },
      }),
    ),
  ...(['symmetric', 'asymmetric'] as const).map(
    (format): GpuCase => ({
      name: `attends to what it has stored, first many tokens, then one by one in a graph, ${format}`,
      run: (device, random) => generate(device, random, format),
    }),
  ),
]

/** Prefill of two sequences and steps of decoding with one captured graph, each against the reference on what the cache then has. */
async function generate(device: CudaDevice, random: Random, format: FormatName): Promise<void> {
  const { heads, keyHeads } = grouped
  const width = (heads + 2 * keyHeads) * D
  using stream = device.createStream()
  using cache = CudaKvCache.create(device, stream, cacheSpecOf(keyHeads, format), { pages: 9 })
  const layer = cache.layer(0, 'test')
  stream.fill(layer, 0xff, 'poison')
  const pagesOf = [
    [7, 1, 4],
    [0, 8],
  ]
  const prompts = [125, 60]
  const rows = 185
  using qkv = stream.allocate(rows * width * 2, 'qkv')
  using q = stream.allocate(rows * heads * D, 'q')
  using qScale = stream.allocate(rows * heads * 4, 'qScale')
  using out = stream.allocate(rows * heads * D * 2, 'out')
  using inverseFrequencies = stream.allocate(256, 'inverseFrequencies')
  const frequencies = Float32Array.from({ length: D / 2 }, (_, i) => 10000 ** (-i / (D / 2)))
  await stream.upload(inverseFrequencies, frequencies, 'inverseFrequencies')
  const storing = { cache, layer: 0, numAttentionHeads: heads, qkv, inverseFrequencies, q, qScale }
  const project = async (tokens: number) => {
    const values = Uint16Array.from({ length: tokens * width }, () => f32ToBf16Bits(random.normal()))
    await stream.upload(qkv, values, 'qkv')
  }
  const check = async (
    what: string,
    lengths: readonly number[],
    newTokens: readonly number[],
    losses: typeof DECODE,
  ) => {
    const tokens = newTokens.reduce((sum, count) => sum + count, 0)
    const bytes = await stream.download(layer, new Uint8Array(layer.bytes), 'cache')
    const slots = lengths.flatMap((length, s) =>
      Array.from({ length }, (_, i) => pagesOf[s]![Math.floor(i / 64)]! * 64 + (i % 64)),
    )
    const exact = storedIn(cache, bytes, slots)
    const problem = {
      ...{ format, heads, keyHeads, pagesOf, pages: cache.pages, cacheSpec: cache.spec, cache: bytes, rows: tokens },
      sequences: lengths.map((length, s) => ({ length, newTokens: newTokens[s]! })),
      exact,
      sizes: exact,
      largest: { key: 15, value: 15 },
      q: decodeE4m3(await stream.download(q, new Uint8Array(tokens * heads * D), 'q')),
      qScale: await stream.download(qScale, new Float32Array(tokens * heads), 'qScale'),
    }
    const actual = await stream.download(out, new Uint16Array(tokens * heads * D), 'out')
    // Elements may be far off where values cancel: the relative error alone counts here.
    await compareAttention(`${what}, ${format}`, actual, problem, { ...losses, floor: 1 })
  }
  {
    const sequences = prompts.map((length, s) => ({ length, newTokens: length, pages: pagesOf[s]! }))
    using batch = await PrefillBatch.create(stream, cache, { sequences, numAttentionHeads: heads })
    await project(rows)
    ropeStoreKv(stream, { ...storing, tokens: rows, positions: batch.positions, slots: batch.slots })
    attendPrefill(stream, { batch, layer: 0, q, qScale, out, dependent: true })
    await check('prefill', prompts, prompts, PREFILL)
  }
  using batch = await DecodeBatch.create(stream, cache, { sequences: 2, pagesPerSequence: 3, numAttentionHeads: heads })
  using step = stream.capture(() => {
    ropeStoreKv(stream, { ...storing, tokens: 2, positions: batch.positions, slots: batch.slots })
    attendDecode(stream, { batch, layer: 0, q, qScale, out, dependent: true })
  })
  for (let i = 1; i <= 6; i++) {
    const lengths = prompts.map((length) => length + i)
    await batch.update(
      stream,
      lengths.map((length, s) => ({ length, pages: pagesOf[s]! })),
    )
    await project(2)
    stream.replay(step, 'a step')
    await check(`step ${i}`, lengths, [1, 1], DECODE)
  }
}
