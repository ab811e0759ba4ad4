import assert from 'node:assert/strict'
import { quantizeTokens } from '../../../src/cuda/quantize.js'
import type { GpuCase } from './gpu-case.js'
import { type InputKind, makeProblem, type ScaleKind } from './linear-problem.js'
import { check, OnDevice } from './on-device.js'

const shapes: readonly (readonly [m: number, n: number, k: number])[] = [
  [1, 16, 128],
  [1, 256, 512],
  [2, 80, 384],
  [7, 128, 1024],
  [8, 4096, 1024],
  [9, 528, 1024],
  [15, 1040, 640],
  [17, 400, 2048],
  [31, 2064, 256],
  [33, 1040, 384],
  [63, 512, 2048],
  [64, 176, 1152],
  [65, 512, 640],
  [100, 4096, 4096],
  [127, 6144, 4096],
  [129, 528, 384],
  [130, 28672, 256],
  [255, 4096, 640],
  [257, 768, 11008],
  [511, 4096, 1024],
  [700, 2064, 1152],
  [1025, 4096, 512],
  [2047, 4096, 1024],
  // A tile an SM of 192 or 256 features, on an H200.
  [11, 17936, 256],
  [30, 21616, 384],
  [47, 25616, 2048],
  // Tiles that are cut among clusters, on an H200.
  [1100, 4096, 2048],
  [1300, 4096, 2048],
  [2047, 2064, 2048],
]

const scaleKinds: readonly ScaleKind[] = ['bf16', 'e4m3', 'f32', 'wild', 'huge group', 'with zeros']
const inputKinds: readonly InputKind[] = ['normal', 'limits', 'subnormal', 'zero rows']

export const linearCases: readonly GpuCase[] = [
  {
    name: 'linear agrees with the reference on every tile, odd sizes, and any mixture of weights, inputs and epilogues',
    async run(device, random) {
      for (const [m, n, k] of shapes) {
        const epilogue = random.pick([{}, { bias: true }, { residual: true }, { bias: true, residual: true }])
        const [scales, inputs] = [random.pick(scaleKinds), random.pick(inputKinds)]
        const minus8 = random.next() < 0.5
        await check(device, random, { m, n, k, minus8, scales: 'bf16' })
        await check(device, random, { m, n, k, minus8: !minus8, scales, inputs, ...epilogue })
      }
    },
  },
  {
    name: 'linear agrees with the reference for every kind of scales and inputs, with and without −8',
    async run(device, random) {
      for (const [m, n, k] of [
        [5, 272, 1024],
        [48, 144, 640],
        [300, 400, 1152],
      ] as const) {
        for (const scales of scaleKinds) {
          for (const inputs of inputKinds) {
            await check(device, random, { m, n, k, scales, inputs, minus8: random.next() < 0.5 })
          }
        }
      }
    },
  },
  {
    name: 'SiLU(gate) · up agrees with the reference on every tile',
    async run(device, random) {
      for (const [m, n, k] of shapes) {
        const scales = random.pick(['bf16', 'e4m3', 'f32', 'with zeros'] as const)
        const [minus8, bias] = [random.next() < 0.5, random.next() < 0.5]
        await check(device, random, { m, n, k, scales, minus8, bias, siluMul: true })
      }
    },
  },
  {
    name: 'linear of no tokens does nothing',
    async run(device, random) {
      using stream = device.createStream()
      using on = await OnDevice.create(device, stream, makeProblem(random, { m: 0, n: 64, k: 128 }))
      on.poison(stream)
      on.run(stream)
      assert.ok((await on.result(stream)).every((bits) => bits === 0xffff))
    },
  },
  {
    name: 'linear adds a residual in place',
    async run(device, random) {
      for (const m of [3, 70, 600]) {
        const problem = makeProblem(random, { m, n: 512, k: 512, residual: true })
        using stream = device.createStream()
        using on = await OnDevice.create(device, stream, problem)
        on.run(stream)
        const apart = await on.result(stream)
        await stream.upload(on.out, problem.residualBits!, 'residual')
        on.linear.run(stream, { x: on.x, xScale: on.xScale!, tokens: m, out: on.out, residual: on.out })
        assert.deepEqual((await on.result(stream)).subarray(0, m * 512), apart.subarray(0, m * 512))
      }
    },
  },
  {
    name: 'linear gives the same bits every time, alone, in a graph, and on two streams at once',
    async run(device, random) {
      using first = device.createStream()
      using second = device.createStream()
      for (const m of [1, 40, 100, 513, 1300]) {
        using a = await OnDevice.create(device, first, makeProblem(random, { m, n: 4096, k: 2048 }))
        using b = await OnDevice.create(device, second, makeProblem(random, { m, n: 2048, k: 4096, siluMul: true }))
        a.run(first)
        const [wantedA, streamA] = [await a.result(first), first]
        b.run(second)
        const [wantedB, streamB] = [await b.result(second), second]
        using graph = first.capture(() => {
          for (let i = 0; i < 8; i++) a.run(first, true)
        })
        for (let i = 0; i < 4; i++) {
          a.poison(streamA)
          b.poison(streamB)
          for (let j = 0; j < 10; j++) {
            a.run(streamA, true)
            b.run(streamB, true)
          }
          assert.deepEqual((await a.result(streamA)).subarray(0, m * 4096), wantedA.subarray(0, m * 4096))
          assert.deepEqual((await b.result(streamB)).subarray(0, m * 1024), wantedB.subarray(0, m * 1024))
          a.poison(first)
          first.replay(graph, 'eight linears')
          assert.deepEqual((await a.result(first)).subarray(0, m * 4096), wantedA.subarray(0, m * 4096))
        }
      }
    },
  },
  {
    name: 'linears that each read what the one before wrote, started early, in a graph',
    async run(device, random) {
      const hidden = 1024
      for (const m of [1, 24, 96, 300]) {
        using stream = device.createStream()
        using on = await OnDevice.create(device, stream, makeProblem(random, { m, n: hidden, k: hidden }))
        const { linear, x, out, problem } = on
        const xScale = on.xScale!
        const chain = (dependent: boolean): void => {
          for (let layer = 0; layer < 6; layer++) {
            linear.run(stream, { x, xScale, tokens: m, out, dependent })
            quantizeTokens(device, stream, { x: out, rows: m, columns: hidden, out: x, scale: xScale, dependent })
          }
        }
        const start = async (): Promise<void> => {
          await stream.upload(x, problem.x, 'x')
          await stream.upload(xScale, problem.xScale!, 'xScale')
        }
        await start()
        chain(false)
        const wanted = await on.result(stream)
        assert.ok(wanted.subarray(0, m * hidden).some((bits) => bits !== 0 && bits !== wanted[0]))
        using graph = stream.capture(() => chain(true))
        for (let i = 0; i < 5; i++) {
          await start()
          on.poison(stream)
          stream.replay(graph, 'six layers')
          const actual = await on.result(stream)
          assert.deepEqual(actual.subarray(0, m * hidden), wanted.subarray(0, m * hidden), `${m} tokens, replay ${i}`)
        }
      }
    },
  },
]
