import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { f32ToE4m3Bits } from '@fireq/formats'
import { expect, it } from 'vitest'
import { type DecodeShape, planDecode } from '../../src/cuda/decode-plan.js'
import { Random } from '../conformance/random.js'
import { compile, describeEmulated, emulated, kernels, run, runOn } from './emulation.js'
import {
  type AttentionProblem,
  type AttentionSpec,
  compareAttention,
  DECODE,
  DECODE_BF16,
  describeAttention,
  type FormatName,
  makeAttention,
} from './gpu/attention-problem.js'

const NAMES = { sym: 'symmetric', asym: 'asymmetric', e4m3: 'e4m3', bf16: 'bf16' } as const
const instance = /^FIREQ_ATTENTION_DECODE\(attention_decode_q(8|16)_(\w+)_d\d+, (\w+), (\d+), (\d+), (\d+), (\d+)\)$/gm
const instances = [...readFileSync(join(kernels, 'attention_decode.cu'), 'utf8').matchAll(instance)].map(
  ([, queries, format, cache, headDim, tiles, warps, stages]) => ({
    queries: Number(queries),
    format: NAMES[format as keyof typeof NAMES] satisfies FormatName,
    headDim: Number(headDim),
    defines: { FORMAT: cache, HEAD_DIM: headDim, TILES: tiles, WARPS: warps, STAGES: stages },
  }),
)

interface Case {
  readonly heads: number
  readonly keyHeads: number
  readonly newTokens: number
  readonly lengths: readonly number[]
  readonly blocks: number
  readonly kind?: AttentionSpec['kind']
  /** Only with this kernel. */
  readonly only?: string
}
/** By queries a key-value head: one block and several, runs with several pieces, segments that cross blocks, empty sequences. */
const cases: Readonly<Record<number, readonly Case[]>> = {
  8: [
    { heads: 4, keyHeads: 2, newTokens: 1, lengths: [64, 33, 0, 1, 31, 130], blocks: 3 },
    { heads: 8, keyHeads: 1, newTokens: 1, lengths: [1300], blocks: 2, kind: 'huge token' },
    { heads: 4, keyHeads: 2, newTokens: 2, lengths: [2, 900, 3, 1500], blocks: 1 },
    { heads: 4, keyHeads: 2, newTokens: 1, lengths: Array.from({ length: 60 }, (_, i) => (i * 7) % 40), blocks: 1 }, // many pieces a run
  ],
  16: [
    { heads: 20, keyHeads: 2, newTokens: 1, lengths: [40, 0, 65], blocks: 2 },
    { heads: 6, keyHeads: 1, newTokens: 3, lengths: [300, 3], blocks: 2, kind: 'huge channel' },
    { heads: 9, keyHeads: 1, newTokens: 1, lengths: [40, 9100, 9], blocks: 1, only: 'symmetric 64' }, // more units a warp than are looked up at once
  ],
}

describeEmulated('the decode kernels on the host', () => {
  it('are all there', () => {
    expect(instances.length).toBe(16)
  })

  it.each(emulated(instances, 3))(
    'q$queries, $format, heads of $headDim: agrees with the reference',
    async ({ queries, format, headDim, defines }) => {
      const program = await compile('attention_decode.cpp', defines)
      const [most, warps] = (await run(program)).split(' ').map(Number) as [number, number]
      expect(most).toBe(queries)
      const random = new Random(headDim + queries)
      for (const { lengths, only, ...spec } of cases[queries]!) {
        if (only !== undefined && only !== `${format} ${headDim}`) continue
        const sequences = lengths.map((length) => ({ length, newTokens: length === 0 ? 0 : spec.newTokens }))
        const problem = makeAttention(random, { format, headDim, ...spec, sequences })
        const parts = Math.ceil(((spec.heads / spec.keyHeads) * spec.newTokens) / queries)
        const shape = { keyHeads: spec.keyHeads, parts, blocks: spec.blocks, warps }
        const out = await launch(program, problem, lengths, spec.newTokens, shape)
        const what = `${describeAttention(problem)}, ${spec.blocks} blocks`
        await compareAttention(what, out, problem, format === 'bf16' ? DECODE_BF16 : DECODE)
      }
    },
  )
})

/** What a kernel's launch makes of a problem: the rows of sequences that aren't empty; those of the others must be zero. */
async function launch(
  program: string,
  { format: _, headDim = 128, heads, keyHeads, ...problem }: AttentionProblem,
  lengths: readonly number[],
  newTokens: number,
  shape: DecodeShape,
): Promise<Uint16Array> {
  const { pagesOf, cache, q, qScale } = problem
  const plan = planDecode(
    lengths.map((length, s) => ({ length, pages: pagesOf[s]! })),
    shape,
  )
  const columns = Math.max(...pagesOf.map((pages) => pages.length))
  const table = new Int32Array(lengths.length * columns).fill(-1)
  for (const [s, pages] of pagesOf.entries()) table.set(pages, s * columns)
  const rows = lengths.flatMap((length) => new Array<boolean>(newTokens).fill(length > 0))
  const queries = spread(Uint8Array.from(q, f32ToE4m3Bits), rows, heads * headDim)
  const sizes = [heads, keyHeads, heads / keyHeads, newTokens, columns, shape.blocks, rows.length]
  const parts = [queries, spread(qScale, rows, heads), cache, table, plan.runs, plan.pieces, plan.merges]
  const all = await runOn(program, sizes, headDim ** -0.5, parts)
  const width = heads * headDim
  const rowOf = (row: number) => all.subarray(row * width, (row + 1) * width)
  expect(rows.every((isThere, row) => isThere || rowOf(row).every((bits) => bits === 0))).toBe(true)
  return Uint16Array.from(rows.flatMap((isThere, row) => (isThere ? [...rowOf(row)] : [])))
}

/** Rows that are there in their places, ones elsewhere. */
function spread<T extends Uint8Array | Float32Array>(values: T, rows: readonly boolean[], width: number): T {
  const result = new (values.constructor as new (length: number) => T)(rows.length * width).fill(1) as T
  let from = 0
  rows.forEach((isThere, row) => {
    if (isThere) result.set(values.subarray(from * width, ++from * width), row * width)
  })
  return result
}
