import type { GpuCase } from './gpu-case.js'
import type { InputKind, ProblemSpec, ScaleKind } from './linear-problem.js'
import { check, checkRepeats } from './on-device.js'

// Every tile, odd M, a row short of a tile and one more, few and many groups, N beyond a block and short of one.
const shapes: readonly (readonly [m: number, n: number, k: number])[] = [
  [1, 16, 128],
  [2, 80, 4096],
  [7, 528, 1024],
  [9, 144, 11008],
  [16, 4096, 512],
  [17, 400, 2048],
  [31, 2064, 384],
  [33, 22016, 256],
  [64, 4096, 512],
  [65, 256, 1152],
  [127, 1040, 640],
  [129, 6144, 384],
  [255, 28672, 128],
  [300, 4096, 384],
  [1025, 1040, 512],
  [1024, 4096, 256],
]

const scaleKinds: readonly ScaleKind[] = ['bf16', 'e4m3', 'f32', 'wild', 'huge group', 'with zeros']
const inputKinds: readonly InputKind[] = ['normal', 'limits', 'subnormal', 'zero rows']
const epilogues = [{}, { bias: true }, { residual: true }, { bias: true, residual: true }] as const

const w4a16 = (spec: ProblemSpec): ProblemSpec => ({ ...spec, activations: 'bf16' })

export const w4a16Cases: readonly GpuCase[] = [
  {
    name: 'INT4 × BF16 agrees with the reference on every tile, odd sizes, and any mixture of weights, inputs and epilogues',
    async run(device, random) {
      for (const [m, n, k] of shapes) {
        const [scales, inputs] = [random.pick(scaleKinds), random.pick(inputKinds)]
        await check(device, random, w4a16({ m, n, k }))
        await check(device, random, w4a16({ m, n, k, scales, inputs, ...random.pick(epilogues) }))
      }
    },
  },
  {
    name: 'INT4 × BF16 agrees with the reference for every kind of scales and inputs',
    async run(device, random) {
      for (const [m, n, k] of [
        [5, 272, 1024],
        [48, 144, 640],
        [300, 400, 1152],
      ] as const) {
        for (const scales of scaleKinds) {
          for (const inputs of inputKinds) await check(device, random, w4a16({ m, n, k, scales, inputs }))
        }
      }
    },
  },
  {
    name: 'SiLU(gate) · up of INT4 × BF16 agrees with the reference on every tile',
    async run(device, random) {
      for (const [m, n, k] of shapes) {
        const scales = random.pick(['bf16', 'e4m3', 'f32', 'with zeros'] as const)
        await check(device, random, w4a16({ m, n, k, scales, bias: random.next() < 0.5, siluMul: true }))
      }
    },
  },
  {
    name: 'INT4 × BF16 gives the same bits every time, alone, started early, and in a graph; no tokens do nothing',
    async run(device, random) {
      for (const [m, n, k] of [
        [0, 64, 128],
        [3, 4096, 2048],
        [24, 2048, 4096],
        [60, 4096, 2048],
        [200, 1040, 1024],
        [700, 1040, 1024],
      ] as const) {
        await checkRepeats(device, random, w4a16({ m, n, k }))
      }
    },
  },
]
