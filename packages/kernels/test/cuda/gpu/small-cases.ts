import { chooseGemm, chooseW4a16 } from '../../../src/cuda/choose-gemm.js'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { checkChunk, checkPrefill, news } from './attention-cases.js'
import { FORMATS, type FormatName } from './attention-problem.js'
import { checkDecode } from './decode-cases.js'
import type { GpuCase } from './gpu-case.js'
import type { ProblemSpec } from './linear-problem.js'
import { check } from './on-device.js'
import { checkStore } from './store-cases.js'

// Every family of kernels on problems of a few blocks: what compute-sanitizer's tools, a hundred times slower, get through in a minute.

const formats = Object.keys(FORMATS) as FormatName[]
const epilogues = [{}, { bias: true, residual: true }, { siluMul: true }] as const

/** For each kernel that is chosen for some small problem, the smallest one. */
function smallest(choose: typeof chooseGemm, { info }: CudaDevice): (readonly [m: number, n: number, k: number])[] {
  const found = new Map<string, readonly [number, number, number]>()
  const problems = [1, 9, 17, 33, 65, 129, 300, 520].flatMap((m) =>
    [144, 528, 4096, 6144, 12288].flatMap((n) => [256, 1152].map((k) => [m, n, k] as const)),
  )
  problems.sort((a, b) => a[0] * a[1] * a[2] - b[0] * b[1] * b[2])
  for (const [m, n, k] of problems) {
    const { family, features, tokens } = choose(m, n, k, info.multiprocessors)
    const name = `${family} ${features} ${tokens}`
    if (!found.has(name)) found.set(name, [m, n, k])
  }
  return [...found.values()]
}

const plainKinds: readonly Partial<ProblemSpec>[] = [
  { groupSize: 32 },
  { groupSize: 64 },
  { accumulate: 'precise' },
  { lookup: true },
  { weight: 'e4m3' },
  { weight: 'bf16' },
]

export const smallCases: readonly GpuCase[] = [
  {
    name: 'small: INT4 × FP8 by every kernel that such problems take, with every epilogue',
    async run(device, random) {
      for (const [m, n, k] of smallest(chooseGemm, device)) {
        for (const epilogue of epilogues) await check(device, random, { m, n, k, ...epilogue })
      }
    },
  },
  {
    name: 'small: INT4 × BF16 by every kernel that such problems take, with every epilogue',
    async run(device, random) {
      for (const [m, n, k] of smallest(chooseW4a16, device)) {
        for (const epilogue of epilogues) await check(device, random, { m, n, k, activations: 'bf16', ...epilogue })
      }
    },
  },
  {
    name: 'small: other weights',
    async run(device, random) {
      for (const kind of plainKinds) {
        for (const [m, n, k] of [
          [17, 144, 256],
          [129, 272, 384],
        ] as const) {
          await check(device, random, { m, n, k, residual: true, ...kind })
        }
      }
    },
  },
  ...formats.flatMap((format) =>
    [64, 128].map(
      (headDim): GpuCase => ({
        name: `small: stores and decodes, ${format}, heads of ${headDim}`,
        async run(device, random) {
          const cache = { format, headDim, heads: 8, keyHeads: 2 }
          await checkStore(device, random, { ...cache, tokens: 70, scaled: true, firstSlot: 1 })
          await checkDecode(device, random, { ...cache, lengths: [65, 0, 33, 700], multiprocessors: 3 })
        },
      }),
    ),
  ),
  ...(['symmetric', 'asymmetric', 'e4m3'] as const).flatMap((format) =>
    [64, 128].map(
      (headDim): GpuCase => ({
        name: `small: prefills, ${format}, heads of ${headDim}`,
        async run(device, random) {
          const shape = { format, headDim, heads: 2, keyHeads: 1, sequences: news([300, 140], [65, 3], [129, 129]) }
          await checkPrefill(device, random, shape)
          if (format !== 'e4m3') await checkChunk(device, random, shape)
        },
      }),
    ),
  ),
]
