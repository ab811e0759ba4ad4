import assert from 'node:assert/strict'
import { attendDecode } from '../../../src/cuda/attention.js'
import { DecodeBatch } from '../../../src/cuda/decode-batch.js'
import type { CudaDevice } from '../../../src/cuda/device.js'
import type { Random } from '../../conformance/random.js'
import { OnDevice } from './attention-on-device.js'
import {
  type AttentionProblem,
  type AttentionSpec,
  compareAttention,
  DECODE,
  DECODE_BF16,
  describeAttention,
  FORMATS,
  type FormatName,
  makeAttention,
} from './attention-problem.js'
import type { GpuCase } from './gpu-case.js'

type DecodeSpec = Omit<AttentionSpec, 'sequences'> & {
  readonly headDim: number
  readonly lengths: readonly number[]
  readonly newTokens?: number
  readonly multiprocessors?: number
}

/** Rows of sequences that are empty are zero, and not the reference's. */
export async function checkDecode(device: CudaDevice, random: Random, spec: DecodeSpec): Promise<void> {
  const { lengths, heads, headDim, format, newTokens = 1, multiprocessors } = spec
  const sequences = lengths.map((length) => ({ length, newTokens }))
  const rowsOf = (length: number) => (length === 0 ? 0 : newTokens)
  const problem = makeAttention(random, {
    ...spec,
    sequences: sequences.map((s) => ({ ...s, newTokens: rowsOf(s.length) })),
  })
  const what = describeAttention(problem)
  const whole = {
    ...problem,
    sequences,
    rows: lengths.length * newTokens,
    ...spreadQueries(problem, lengths, newTokens),
  }
  using stream = device.createStream()
  using on = await OnDevice.create(device, stream, whole)
  const pagesPerSequence = Math.min(on.cache.pages, Math.max(2, ...problem.pagesOf.map((pages) => pages.length)))
  const sizes = { sequences: lengths.length, pagesPerSequence, newTokens, numAttentionHeads: heads }
  const options = { ...sizes, ...(multiprocessors && { multiprocessors }) }
  using batch = await DecodeBatch.create(stream, on.cache, options)
  const { q, qScale, out } = on
  const attend = (dependent = false) => attendDecode(stream, { batch, layer: 0, q, qScale, out, dependent })
  const none = await on.run(attend)
  assert.ok(
    none.every((bits) => bits === 0),
    `${what}: a batch without sequences isn't zero`,
  )
  await batch.update(stream, on.sequences)
  const first = await on.run(attend)
  const width = newTokens * heads * headDim
  const rows: number[] = []
  lengths.forEach((length, s) => {
    const row = first.subarray(s * width, (s + 1) * width)
    if (length > 0) rows.push(...row)
    else
      assert.ok(
        row.every((bits) => bits === 0),
        `${what}: empty sequence ${s} isn't zero`,
      )
  })
  await compareAttention(what, Uint16Array.from(rows), problem, format === 'bf16' ? DECODE_BF16 : DECODE)
  assert.deepEqual(await on.run(attend), first, `${what}: other bits the second time`)
  assert.deepEqual(await on.run(() => attend(true)), first, `${what}: other bits when started early`)
  using graph = stream.capture(attend)
  assert.deepEqual(await on.run(() => stream.replay(graph, 'decode')), first, `${what}: other bits in a graph`)
}

/** Queries of sequences that have tokens, at rows sequence · newTokens + token; anything at the others. */
function spreadQueries(problem: AttentionProblem, lengths: readonly number[], newTokens: number) {
  const { heads, headDim = 128, q, qScale } = problem
  const rows = lengths.length * newTokens
  const all = { q: new Float32Array(rows * heads * headDim).fill(1), qScale: new Float32Array(rows * heads).fill(1) }
  const width = newTokens * heads
  let from = 0
  lengths.forEach((length, s) => {
    if (length === 0) return
    all.q.set(q.subarray(from * width * headDim, (from + 1) * width * headDim), s * width * headDim)
    all.qScale.set(qScale.subarray(from * width, (from + 1) * width), s * width)
    from++
  })
  return all
}

const grouped = { heads: 8, keyHeads: 2 }
const kinds = ['equal keys', 'huge token', 'huge channel'] as const
const headsAndTokens = [
  [2, 2, 1],
  [32, 8, 1],
  [32, 2, 1],
  [5, 1, 3],
  [8, 2, 2],
  [8, 2, 4],
  [8, 8, 8],
  [32, 8, 5], // 20 and 32 queries a key-value head: two passes
  [16, 4, 8],
  [20, 1, 2],
] as const

const formats = Object.keys(FORMATS) as FormatName[]

export const decodeCases: readonly GpuCase[] = formats.flatMap((format) =>
  [64, 128].flatMap((headDim): GpuCase[] => {
    const cache = { format, headDim }
    const over = `over a cache in ${format}, heads of ${headDim}`
    return [
      {
        name: `decode agrees with the reference for lengths around tiles and pages, empty sequences and pages in random order, ${over}`,
        async run(device, random) {
          const many = Array.from({ length: 40 }, (_, i) => (i * 37) % 150)
          for (const lengths of [[1], [64, 65, 63, 0, 1, 130, 31, 32, 33], [1000, 17, 2305], [0, 0], many]) {
            await checkDecode(device, random, { ...cache, ...grouped, lengths })
          }
          // Whole segments a block; several blocks a segment; more units a warp than are looked up at once.
          await checkDecode(device, random, { ...cache, heads: 8, keyHeads: 8, lengths: new Array(33).fill(96) })
          await checkDecode(device, random, { ...cache, heads: 1, keyHeads: 1, lengths: [9001, 64] })
          if (headDim > 64) return
          for (const [multiprocessors, length] of [
            [1, 24000],
            [3, 5000],
          ] as const) {
            const lengths = [40, length, 77]
            await checkDecode(device, random, { ...cache, heads: 1, keyHeads: 1, lengths, multiprocessors })
          }
        },
      },
      {
        name: `decode agrees with the reference for every size of groups and several new tokens, ${over}`,
        async run(device, random) {
          for (const [heads, keyHeads, newTokens] of headsAndTokens) {
            const lengths = [300, newTokens, 0, 65]
            await checkDecode(device, random, { ...cache, heads, keyHeads, newTokens, lengths })
          }
        },
      },
      {
        name: `decode agrees with the reference on one huge token, one huge channel and equal keys, ${over}`,
        async run(device, random) {
          for (const kind of kinds) {
            await checkDecode(device, random, { ...cache, ...grouped, lengths: [900, 70], kind })
          }
        },
      },
    ]
  }),
)
