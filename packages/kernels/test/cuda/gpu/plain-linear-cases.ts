import assert from 'node:assert/strict'
import { CudaLinear } from '../../../src/cuda/linear.js'
import type { GpuCase } from './gpu-case.js'
import { type InputKind, makeProblem, type ProblemSpec, type ScaleKind } from './linear-problem.js'
import { check, checkRepeats, OnDevice } from './on-device.js'

// Odd M, a row short of a tile and one more, few and many groups, N beyond a block and short of one.
const shapes: readonly (readonly [m: number, n: number, k: number])[] = [
  [1, 16, 128],
  [2, 80, 4096],
  [15, 528, 1024],
  [16, 144, 11008],
  [17, 400, 2048],
  [33, 2064, 384],
  [63, 4096, 512],
  [65, 256, 1152],
  [127, 1040, 640],
  [129, 8192, 256],
  [255, 272, 2048],
  [300, 4096, 384],
  [1025, 1040, 512],
]

const scaleKinds: readonly ScaleKind[] = ['bf16', 'e4m3', 'f32', 'wild', 'huge group', 'with zeros']
const inputKinds: readonly InputKind[] = ['normal', 'limits', 'subnormal', 'zero rows']
const epilogues = [{}, { bias: true }, { residual: true }, { bias: true, residual: true }, { siluMul: true }] as const

type Kind = Partial<ProblemSpec>

const int4Kinds: readonly Kind[] = [
  { groupSize: 32 },
  { groupSize: 64 },
  { accumulate: 'precise' },
  { lookup: true },
  { lookup: true, channelScale: true },
]
const denseKinds: readonly Kind[] = (['e4m3', 'bf16'] as const).flatMap((weight) => [
  { weight },
  { weight, output: 'f32' as const },
  { weight, accumulate: 'precise' as const },
  { weight, accumulate: 'precise' as const, output: 'f32' as const },
])

/** What can't be asked for together, taken out. */
function possible(spec: ProblemSpec): ProblemSpec {
  return spec.siluMul && spec.output === 'f32' ? { ...spec, siluMul: false } : spec
}

export const plainLinearCases: readonly GpuCase[] = [
  {
    name: 'INT4 in groups of 32 and 64, precise ones, and look-ups agree with the reference on every tile and epilogue',
    async run(device, random) {
      for (const kind of int4Kinds) {
        for (const [m, n, k] of shapes) {
          const [scales, inputs] = [random.pick(scaleKinds), random.pick(inputKinds)]
          const minus8 = random.next() < 0.5
          await check(device, random, { m, n, k, minus8, scales, inputs, ...random.pick(epilogues), ...kind })
        }
      }
    },
  },
  {
    name: 'INT4 in groups of 32 and 64, precise ones, and look-ups agree with the reference for every kind of scales and inputs',
    async run(device, random) {
      for (const kind of int4Kinds) {
        for (const scales of scaleKinds) {
          for (const inputs of inputKinds) {
            const m = random.pick([5, 41, 90])
            await check(device, random, { m, n: 80, k: 640, scales, inputs, minus8: random.next() < 0.5, ...kind })
          }
        }
      }
    },
  },
  {
    name: 'FP8 and BF16 weights agree with the reference on every tile, input and epilogue, in BF16 and FP32',
    async run(device, random) {
      for (const kind of denseKinds) {
        for (const [m, n, k] of shapes) {
          const inputs = random.pick(inputKinds)
          await check(device, random, possible({ m, n, k, inputs, ...random.pick(epilogues), ...kind }))
        }
      }
    },
  },
  {
    name: 'an output head in FP8 and BF16',
    async run(device, random) {
      for (const weight of ['e4m3', 'bf16'] as const) {
        await check(device, random, { m: 3, n: 32000, k: 256, weight, output: 'f32' })
      }
    },
  },
  {
    name: 'the precise way says that it is, the fast one that it is not',
    async run(device, random) {
      using stream = device.createStream()
      const accumulateOf = async (kind: Kind): Promise<string> => {
        using linear = await CudaLinear.pack(
          device,
          stream,
          makeProblem(random, { m: 1, n: 16, k: 128, ...kind }).tensor,
        )
        return linear.accumulate
      }
      assert.deepEqual(await Promise.all([{}, { weight: 'e4m3' } as const].map(accumulateOf)), ['fast', 'fast'])
      for (const kind of [{ groupSize: 32 }, { groupSize: 64 }, { lookup: true }, { weight: 'bf16' }] as const) {
        assert.equal(await accumulateOf(kind), 'precise')
      }
    },
  },
  {
    name: 'no tokens of any weight: nothing is done',
    async run(device, random) {
      for (const kind of [...int4Kinds, ...denseKinds]) {
        using stream = device.createStream()
        using on = await OnDevice.create(device, stream, makeProblem(random, { m: 0, n: 64, k: 128, ...kind }))
        on.poison(stream)
        on.run(stream)
        assert.equal(new Set(await on.result(stream)).size, 1)
      }
    },
  },
  {
    name: 'every kind of weight gives the same bits every time, alone, started early, and in a graph',
    async run(device, random) {
      for (const kind of [...int4Kinds, ...denseKinds]) {
        for (const [m, n, k] of [
          [7, 528, 2048],
          [200, 1040, 1024],
        ] as const) {
          await checkRepeats(device, random, { m, n, k, ...kind })
        }
      }
    },
  },
]
