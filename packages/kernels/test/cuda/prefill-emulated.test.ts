import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { f32ToE4m3Bits } from '@fireq/formats'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cutWork } from '../../src/cuda/prefill-batch.js'
import { Random } from '../conformance/random.js'
import {
  type AttentionProblem,
  type AttentionSpec,
  compareAttention,
  describeAttention,
  makeAttention,
  PREFILL,
} from './gpu/attention-problem.js'

// The prefill kernels on the host: kernels/cuda/tests/emulation runs their threads as fibers, with a warp's and a warpgroup's
// instructions emulated.

const kernels = fileURLToPath(new URL('../../../../kernels/cuda', import.meta.url))
const hasCompiler =
  spawnSync('c++', ['--version']).status === 0 && process.arch === 'x64' && process.platform === 'linux'
if (!hasCompiler) console.log('skipped: prefill kernels on the host: needs c++ on x64 Linux')

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

describe.skipIf(!hasCompiler)('the prefill kernels on the host', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'fireq-prefill-'))
    // Without ptx.cuh and wgmma.cuh: those of the emulation are found.
    for (const name of readdirSync(kernels)) {
      if (/^(attention_prefill.*|kv_layout|ring)\.cuh$/.test(name))
        copyFileSync(join(kernels, name), join(folder, name))
    }
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  it.each([...instances, { ...instances[0]!, stages: 1 }])(
    '$format, heads of $headDim, $stages stages: agree with the reference',
    async ({ format, cache, headDim, stages }) => {
      const program = join(folder, `${format}-${headDim}-${stages}`)
      const emulation = join(kernels, 'tests/emulation')
      const names = Object.entries({ FORMAT: cache, HEAD_DIM: headDim, STAGES: stages })
      const args = [
        ...['-std=c++20', '-O2', ...names.map(([name, value]) => `-D${name}=${value}`)],
        ...[`-I${folder}`, `-I${emulation}`, join(emulation, 'attention_prefill.cpp'), '-o', program],
      ]
      const compiled = spawnSync('c++', args, { encoding: 'utf8' })
      expect(compiled.status, compiled.stderr).toBe(0)
      const random = new Random(headDim + stages)
      for (const { sequences, blocks, ...spec } of cases) {
        const pairs = sequences.map(([length, newTokens]) => ({ length, newTokens }))
        const problem = makeAttention(random, {
          format: format as AttentionSpec['format'],
          headDim,
          ...spec,
          sequences: pairs,
        })
        const out = run(program, problem, blocks)
        await compareAttention(`${describeAttention(problem)}, ${blocks} blocks`, out, problem, PREFILL)
      }
    },
  )
})

/** What the two launches make of a problem. */
function run(
  program: string,
  { headDim = 128, heads, keyHeads, ...problem }: AttentionProblem,
  blocks: number,
): Uint16Array {
  const { pagesOf, cache, q, qScale, rows, sequences } = problem
  const { tiles, work } = cutWork(sequences, heads, 128)
  const columns = Math.max(...pagesOf.map((pages) => pages.length))
  const table = new Int32Array(sequences.length * columns).fill(-1)
  for (const [s, pages] of pagesOf.entries()) table.set(pages, s * columns)
  const pieces = work.length / 4
  const sizes = [tiles.length / 4, keyHeads, columns, pieces, heads, rows, Math.min(blocks, pieces)]
  const parts = [cache, table, tiles, Uint8Array.from(q, f32ToE4m3Bits), qScale, work].flatMap((part) => [
    BigInt64Array.of(BigInt(part.byteLength)),
    part,
  ])
  const input = [Int32Array.from(sizes), Float32Array.of(headDim ** -0.5), ...parts]
  const bytes = input.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength))
  writeFileSync(`${program}.in`, Buffer.concat(bytes))
  const { status, stdout } = spawnSync(program, [`${program}.in`, `${program}.out`], { encoding: 'utf8' })
  expect(status, stdout).toBe(0)
  const found = readFileSync(`${program}.out`)
  return new Uint16Array(found.buffer, found.byteOffset, found.length / 2)
}
