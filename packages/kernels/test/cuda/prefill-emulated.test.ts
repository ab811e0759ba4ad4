import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { f32ToE4m3Bits } from '@fireq/formats'
import { it } from 'vitest'
import { planDirectPrefill, planPrefill } from '../../src/cuda/prefill-plan.js'
import { Random } from '../conformance/random.js'
import { compile, describeEmulated, emulated, kernels, type Part, runOn } from './emulation.js'
import {
  type AttentionProblem,
  type AttentionSpec,
  compareAttention,
  DECODE_BF16,
  describeAttention,
  makeAttention,
  PREFILL,
  withNewTokensOf,
} from './gpu/attention-problem.js'

const instances = [
  { format: 'symmetric', cache: 'kInt4Symmetric' },
  { format: 'asymmetric', cache: 'kInt4Asymmetric' },
  { format: 'e4m3', cache: 'kE4m3' },
].flatMap(({ format, cache }) => [128, 64].map((headDim) => ({ format, cache, headDim, stages: 4 })))

interface Case extends Pick<AttentionSpec, 'heads' | 'keyHeads' | 'kind'> {
  /** [length, new tokens] of each sequence. */
  readonly sequences: readonly (readonly [number, number])[]
  readonly blocks: number
}
const cases: readonly Case[] = [
  {
    heads: 2,
    keyHeads: 1,
    sequences: [
      [129, 129],
      [1, 1],
      [65, 3],
      [50, 0],
      [300, 140],
      [64, 64],
    ],
    blocks: 3,
  },
  { heads: 2, keyHeads: 2, sequences: [[520, 70]], blocks: 1, kind: 'huge token' },
  { heads: 2, keyHeads: 1, sequences: [[700, 90]], blocks: 2, kind: 'growing keys' },
  { heads: 1, keyHeads: 1, sequences: [[200, 200]], blocks: 5, kind: 'huge channel' },
  { heads: 1, keyHeads: 1, sequences: [[200, 90]], blocks: 1, kind: 'equal keys' },
]

describeEmulated('the prefill kernels on the host', () => {
  it.each(emulated([...instances, { ...instances[0]!, stages: 1 }], 3))(
    '$format, heads of $headDim, $stages stages: agree with the reference',
    async ({ format, cache, headDim, stages }) => {
      const program = await compile('attention_prefill.cpp', { FORMAT: cache, HEAD_DIM: headDim, STAGES: stages })
      const random = new Random(headDim + stages)
      for (const { sequences, blocks, ...spec } of cases) {
        const pairs = sequences.map(([length, newTokens]) => ({ length, newTokens }))
        const problem = makeAttention(random, {
          format: format as AttentionSpec['format'],
          headDim,
          ...spec,
          sequences: pairs,
        })
        const out = await launch(program, problem, blocks)
        await compareAttention(`${describeAttention(problem)}, ${blocks} blocks`, out, problem, PREFILL)
      }
    },
  )

  const chunks = [
    { format: 'asymmetric', cache: 'kInt4Asymmetric', headDim: 64 },
    { format: 'symmetric', cache: 'kInt4Symmetric', headDim: 128 },
  ] as const
  it.each(emulated(chunks, 2))(
    '$format, heads of $headDim: new tokens from an E4M3 cache',
    async ({ format, cache, headDim }) => {
      const defines = { FORMAT: cache, HEAD_DIM: headDim, STAGES: 4, CHUNK: 1 }
      const program = await compile('attention_prefill.cpp', defines)
      const random = new Random(headDim)
      const pairs = [
        [300, 140],
        [70, 6],
        [129, 1],
        [50, 0],
        [64, 64],
        [257, 100],
        [330, 10],
      ] as const
      const sequences = pairs.map(([length, newTokens]) => ({ length, newTokens }))
      const shape = { headDim, heads: 2, keyHeads: 1, sequences }
      const old = makeAttention(random, { format, ...shape })
      const chunk = makeAttention(random, { ...shape, format: 'e4m3' })
      const mixed = withNewTokensOf(chunk, old)
      const out = await launch(program, old, 3, chunk)
      await compareAttention(`${describeAttention(old)}, new ones in E4M3`, out, mixed, PREFILL)
    },
  )

  const source = readFileSync(join(kernels, 'attention_prefill_bf16.cu'), 'utf8')
  const direct = [...source.matchAll(/^FIREQ_ATTENTION_PREFILL_DIRECT\(\w+, (\d+), (\d+), (\d+)\)$/gm)].map(
    ([, ...args]) => {
      const [headDim, warps, stages] = args.map(Number) as [number, number, number]
      return { headDim, warps, stages }
    },
  )
  it.each(direct)('BF16, heads of $headDim: agree with the reference', async ({ headDim, warps, stages }) => {
    const defines = { HEAD_DIM: headDim, WARPS: warps, STAGES: stages }
    const program = await compile('attention_prefill_direct.cpp', defines)
    const random = new Random(headDim)
    const wide: Case = { heads: 5, keyHeads: 1, sequences: [[40, 40]], blocks: 1 }
    const long: Case = { heads: 1, keyHeads: 1, sequences: [[32 * (2 * stages + 1), 9]], blocks: 1 }
    for (const { sequences, blocks: _, ...spec } of [...cases, wide, long]) {
      const pairs = sequences.map(([length, newTokens]) => ({ length, newTokens }))
      const problem = makeAttention(random, { format: 'bf16', headDim, ...spec, sequences: pairs })
      const out = await launchDirect(program, problem, 16 * warps)
      await compareAttention(describeAttention(problem), out, problem, DECODE_BF16)
    }
  })
})

/** A row a sequence: its pages from that of token `from` on, −1 elsewhere. */
function tableOf({ pagesOf }: AttentionProblem, from: (sequence: number) => number): Int32Array {
  const columns = Math.max(...pagesOf.map((pages) => pages.length))
  return Int32Array.from(
    pagesOf.flatMap((pages, s) =>
      Array.from({ length: columns }, (_, i) => (i >= Math.floor(from(s) / 64) ? (pages[i] ?? -1) : -1)),
    ),
  )
}

/** What the two launches make of a problem; chunk: where the new tokens are. */
function launch(
  program: string,
  problem: AttentionProblem,
  blocks: number,
  chunk?: AttentionProblem,
): Promise<Uint16Array> {
  const { headDim = 128, heads, keyHeads, pagesOf, q, qScale, rows, sequences } = problem
  const plan = planPrefill(sequences, heads, 128, blocks)
  const columns = Math.max(...pagesOf.map((pages) => pages.length))
  const sizes = [plan.tiles.length / 4, keyHeads, columns, plan.work.length / 4, heads, rows, plan.blocks]
  const caches = Uint8Array.from([...problem.cache, ...(chunk?.cache ?? [])])
  const parts: Part[] = [
    caches,
    tableOf(problem, () => 0),
    plan.tiles,
    Uint8Array.from(q, f32ToE4m3Bits),
    qScale,
    plan.work,
  ]
  if (chunk !== undefined) parts.push(tableOf(chunk, (s) => sequences[s]!.length - sequences[s]!.newTokens))
  return runOn(program, sizes, headDim ** -0.5, parts)
}

/** What the kernel for BF16 caches makes of it. */
function launchDirect(program: string, problem: AttentionProblem, queries: number): Promise<Uint16Array> {
  const { headDim = 128, heads, keyHeads, pagesOf, q, qScale, rows, sequences, cache } = problem
  const work = planDirectPrefill(sequences, Math.floor((queries * keyHeads) / heads))
  const columns = Math.max(...pagesOf.map((pages) => pages.length))
  const sizes = [keyHeads, columns, work.length / 4, heads, rows]
  const parts = [cache, tableOf(problem, () => 0), Uint8Array.from(q, f32ToE4m3Bits), qScale, work]
  return runOn(program, sizes, headDim ** -0.5, parts)
}
