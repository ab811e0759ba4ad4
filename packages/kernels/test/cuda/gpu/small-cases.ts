import { chooseGemm, chooseW4a16 } from '../../../src/cuda/choose-gemm.js'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { checkChunk, checkPrefill, news } from './attention-cases.js'
import { FORMATS, type FormatName } from './attention-problem.js'
import { checkDecode } from './decode-cases.js'
import type { GpuCase } from './gpu-case.js'
import type { ProblemSpec } from './linear-problem.js'
import { check } from './on-device.js'
import { checkStore } from './store-cases.js'

// Every family of kernels on problems of a few blocks: what compute-sanitizer's tools, a hundred times slower, get through in minutes.

const formats = Object.keys(FORMATS) as FormatName[]
const epilogues = [{}, { bias: true, residual: true }, { siluMul: true }] as const

type Shape = readonly [m: number, n: number, k: number]

const shapes: readonly Shape[] = [1, 9, 17, 33, 65, 129, 257, 300, 520, 800]
  .flatMap((m) =>
    [144, 528, 1040, 2064, 3088, 4096, 6144, 12288, 17936, 25616].flatMap((n) =>
      [256, 1152, 2048, 4096, 8192, 16384].map((k) => [m, n, k] as const),
    ),
  )
  .sort((a, b) => a[0] * a[1] * a[2] - b[0] * b[1] * b[2])

/** More groups of 128 than a kernel's ring of stages holds. */
const MANY_GROUPS = 11

/**
 * For each kernel with such tiles that is chosen for some shape: the smallest shape, the smallest one whose blocks fill their ring
 * again, and the smallest one whose tiles are cut.
 */
function smallest(choose: typeof chooseGemm, tileTokens: number, { info }: CudaDevice): readonly Shape[] {
  const found = new Map<string, Shape>()
  for (const shape of shapes) {
    const { family, features, tokens, split, cut } = choose(...shape, info.multiprocessors)
    if (tokens !== tileTokens) continue
    const kind = cut > 0 ? 'cut' : shape[2] / 128 / split >= MANY_GROUPS ? 'refilled' : ''
    const name = `${family} ${features} ${kind}`
    if (!found.has(name)) found.set(name, shape)
  }
  if (found.size === 0) throw new Error(`Expected a kernel with tiles of ${tileTokens} tokens for some shape`)
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
  ...(['e4m3', 'bf16'] as const).flatMap((activations) =>
    [8, 16, 32, 64, 128, 256].map(
      (tokens): GpuCase => ({
        name: `small: INT4 × ${activations === 'bf16' ? 'BF16' : 'FP8'} by kernels with tiles of ${tokens} tokens`,
        async run(device, random) {
          for (const [m, n, k] of smallest(activations === 'bf16' ? chooseW4a16 : chooseGemm, tokens, device)) {
            for (const epilogue of epilogues) await check(device, random, { m, n, k, activations, ...epilogue })
          }
        },
      }),
    ),
  ),
  {
    name: 'small: other weights',
    async run(device, random) {
      for (const kind of plainKinds) {
        for (const [m, n, k] of [
          [17, 144, 256],
          [17, 144, 128 * MANY_GROUPS],
          [129, 272, 384],
          [129, 144, 128 * MANY_GROUPS],
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
  ...formats.flatMap((format) =>
    [64, 128].map(
      (headDim): GpuCase => ({
        name: `small: prefills, ${format}, heads of ${headDim}`,
        async run(device, random) {
          const shape = { format, headDim, heads: 2, keyHeads: 1, sequences: news([300, 140], [65, 3], [129, 129]) }
          const few = format === 'bf16' ? {} : { multiprocessors: 2 } // several items a block
          await checkPrefill(device, random, { ...shape, ...few })
          if (format === 'symmetric' || format === 'asymmetric') await checkChunk(device, random, shape)
        },
      }),
    ),
  ),
]
