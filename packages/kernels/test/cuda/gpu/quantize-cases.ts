import assert from 'node:assert/strict'
import { bf16BitsToF32, decodeBf16, decodeE4m3, encodeBf16, roundBf16, roundE4m3 } from '@fireq/formats'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { quantizeTokens, rmsNormQuantize } from '../../../src/cuda/quantize.js'
import type { CudaBuffer } from '../../../src/cuda/resources.js'
import type { CudaStream } from '../../../src/cuda/stream.js'
import { quantizeGroups } from '../../../src/ops/quantize-fp8.js'
import { exact, firstDifference } from '../../conformance/compare.js'
import type { Random } from '../../conformance/random.js'
import type { GpuCase } from './gpu-case.js'

interface Quantized {
  readonly out: Float32Array
  readonly scale: Float32Array
}

interface Norm {
  /** BF16 bits [columns]. */
  readonly weight: Uint16Array
  readonly eps: number
}

/** Runs one of the two kernels on BF16 bits [rows, columns], its outputs poisoned before. */
async function onDevice(device: CudaDevice, x: Uint16Array, columns: number, norm?: Norm): Promise<Quantized> {
  const rows = x.length / columns
  using stream = device.createStream()
  using input = await put(stream, x)
  using out = stream.allocate(rows * columns, 'out')
  using scale = stream.allocate(rows * 4, 'scale')
  stream.fill(out, 0x7f, 'poison')
  stream.fill(scale, 0xff, 'poison')
  const op = { x: input, rows, columns, out, scale }
  if (norm === undefined) quantizeTokens(device, stream, op)
  else {
    using weight = await put(stream, norm.weight)
    rmsNormQuantize(device, stream, { ...op, weight, eps: norm.eps })
  }
  return {
    out: decodeE4m3(await stream.download(out, new Uint8Array(rows * columns), 'out')),
    scale: await stream.download(scale, new Float32Array(rows), 'scale'),
  }
}

async function put(stream: CudaStream, data: ArrayBufferView): Promise<CudaBuffer> {
  const buffer = stream.allocate(data.byteLength, 'input')
  await stream.upload(buffer, data, 'input')
  return buffer
}

/** What the op says it is. */
function expected(x: Uint16Array, columns: number): Quantized {
  const result = { out: new Float32Array(x.length), scale: new Float32Array(x.length / columns) }
  quantizeGroups(decodeBf16(x), columns, result.out, result.scale)
  return result
}

function assertSame(name: string, columns: number, actual: Quantized, wanted: Quantized): void {
  assert.equal(firstDifference(`${name}: scale`, 1, actual.scale, wanted.scale, exact), undefined)
  assert.equal(firstDifference(`${name}: out`, columns, actual.out, wanted.out, exact), undefined)
}

const kinds: Readonly<Record<string, (random: Random, i: number) => number>> = {
  normal: (random) => random.normal(),
  'of one magnitude': (random, i) => (i % 2 === 0 ? 448 : -448) * random.pick([1, 1, 1, 0]),
  'subnormal next to 1': (random, i) => (i === 0 ? 1 : random.normal() * 2 ** -12),
  'tiny as BF16 goes': (random) => random.normal() * 2 ** -130,
  huge: (random) => random.normal() * 2 ** 125,
  zero: () => 0,
  'negative zero': () => -0,
  'of any exponent': (random) => random.normal() * 2 ** random.int(-120, 120),
}

function matrix(random: Random, rows: number, columns: number, kind: string): Uint16Array {
  return encodeBf16(Float32Array.from({ length: rows * columns }, (_, i) => kinds[kind]!(random, i % columns)))
}

export const quantizeCases: readonly GpuCase[] = [
  {
    name: 'quantizes every shape as the reference does, to the bit',
    async run(device, random) {
      for (const columns of [8, 16, 128, 1000, 2048, 4096, 4104, 5120, 8192, 11008, 13824, 14336, 28672, 32768]) {
        for (const rows of [0, 1, 2, 17]) {
          const x = matrix(random, rows, columns, 'normal')
          assertSame(`[${rows}, ${columns}]`, columns, await onDevice(device, x, columns), expected(x, columns))
        }
      }
      // So many rows have other blocks.
      for (const columns of [1000, 4096, 14336, 28672]) {
        const x = matrix(random, 600, columns, 'normal')
        assertSame(`[600, ${columns}]`, columns, await onDevice(device, x, columns), expected(x, columns))
      }
    },
  },
  {
    name: 'quantizes adversarial values as the reference does, to the bit',
    async run(device, random) {
      for (const kind of Object.keys(kinds)) {
        const x = matrix(random, 33, 4096, kind)
        assertSame(kind, 4096, await onDevice(device, x, 4096), expected(x, 4096))
      }
    },
  },
  {
    name: 'quantizes every BF16 below every mantissa of the largest, to the bit',
    async run(device) {
      // A row a mantissa of its largest value: all smaller BF16 values, in both signs.
      for (const exponent of [1, 30, 34, 60, 127, 140, 254]) {
        const columns = 32768
        const rows = 128
        const x = new Uint16Array(rows * columns)
        for (let row = 0; row < rows; row++) {
          const most = (exponent << 7) | row
          for (let i = 0; i < columns; i++) x[row * columns + i] = Math.min(i, most) | ((i & 1) << 15)
        }
        assertSame(`exponent ${exponent}`, columns, await onDevice(device, x, columns), expected(x, columns))
      }
    },
  },
  {
    name: 'keeps a NaN where it was, and marks a row with an infinity',
    async run(device, random) {
      const x = matrix(random, 4, 256, 'normal')
      x[10] = 0x7fc0
      x[256 + 11] = 0x7f80
      x[512 + 12] = 0xff80
      for (let i = 0; i < 256; i++) x[768 + i] = 0xffff
      assertSame('NaN and ∞', 256, await onDevice(device, x, 256), expected(x, 256))
    },
  },
  {
    name: 'normalizes and quantizes within a rounding of the exact result',
    async run(device, random) {
      for (const columns of [8, 128, 2048, 4096, 5120, 8192, 16384]) {
        for (const rows of columns === 2048 ? [1, 1000] : [0, 1, 19]) {
          const x = matrix(random, rows, columns, 'normal')
          const norm = { weight: matrix(random, 1, columns, 'normal'), eps: 1e-5 }
          checkNormalized(x, columns, norm, await onDevice(device, x, columns, norm))
        }
      }
      const zeros = new Uint16Array(512)
      const norm = { weight: matrix(random, 1, 512, 'normal'), eps: 1e-6 }
      checkNormalized(zeros, 512, norm, await onDevice(device, zeros, 512, norm))
    },
  },
  {
    name: 'gives the same bits every time',
    async run(device, random) {
      const x = matrix(random, 300, 4096, 'normal')
      const norm = { weight: matrix(random, 1, 4096, 'normal'), eps: 1e-5 }
      const first = await onDevice(device, x, 4096, norm)
      for (let i = 0; i < 10; i++) assert.deepEqual(await onDevice(device, x, 4096, norm), first)
    },
  },
  {
    name: 'runs in a graph, each kernel started before the last one ended',
    async run(device, random) {
      const [rows, columns] = [64, 4096]
      using stream = device.createStream()
      using x = stream.allocate(rows * columns * 2, 'x')
      using weight = await put(stream, matrix(random, 1, columns, 'normal'))
      using out = stream.allocate(rows * columns, 'out')
      using scale = stream.allocate(rows * 4, 'scale')
      const op = { x, rows, columns, out, scale, dependent: true }
      using graph = stream.capture(() => {
        for (let i = 0; i < 8; i++) rmsNormQuantize(device, stream, { ...op, weight, eps: 1e-5 })
        quantizeTokens(device, stream, op)
      })
      for (let i = 0; i < 3; i++) {
        const values = matrix(random, rows, columns, 'normal')
        await stream.upload(x, values, 'x')
        stream.replay(graph, 'nine kernels')
        const actual = {
          out: decodeE4m3(await stream.download(out, new Uint8Array(rows * columns), 'out')),
          scale: await stream.download(scale, new Float32Array(rows), 'scale'),
        }
        assertSame(`replay ${i}`, columns, actual, expected(values, columns))
      }
    },
  },
  {
    name: 'reports a launch that can not be, and stays usable',
    async run(device) {
      using stream = device.createStream()
      using x = stream.allocate(64, 'x')
      stream.fill(x, 0, 'x')
      const kernel = device.kernel('quantize_tokens_1')
      const width = { type: 'i32', value: 8 } as const
      const shape = { grid: [1, 1, 1], block: [2048, 1, 1] } as const
      assert.throws(() => stream.launch(kernel, shape, [x, x, x, width], 'quantizeFp8 of x [1, 8]'), {
        name: 'BackendError',
        message:
          /^quantizeFp8 of x \[1, 8\]: kernel quantize_tokens_1, grid 1 × 1 × 1, block 2048 × 1 × 1, .*CUDA_ERROR_INVALID_VALUE/,
      })
      assert.throws(() => stream.launch(kernel, { ...shape, block: [32, 1, 1] }, [x, x, width], 'quantizeFp8'), {
        message: 'quantizeFp8: kernel quantize_tokens_1 takes 4 arguments, but received 3',
      })
      stream.launch(kernel, { ...shape, block: [32, 1, 1] }, [x, x, x, width], 'quantizeFp8 of x [1, 8]')
      await stream.synchronize()
    },
  },
]

/**
 * FP32 sums may round a normalized value to the next BF16 number, and with it the scale and the code: both stay within a
 * step of the exact ones, and few differ at all.
 */
function checkNormalized(x: Uint16Array, columns: number, norm: Norm, actual: Quantized): void {
  let differing = 0
  for (let row = 0; row < x.length / columns; row++) {
    const values = Array.from(x.subarray(row * columns, (row + 1) * columns), bf16BitsToF32)
    const factor = 1 / Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / columns + norm.eps)
    const normed = values.map((v, i) => roundBf16(Math.fround(v * factor * bf16BitsToF32(norm.weight[i]!))))
    const most = normed.reduce((max, v) => Math.max(max, Math.abs(v)), 0)
    const scale = most === 0 ? 1 : Math.fround(most / 448)
    const got = actual.scale[row]!
    assert.ok(Math.abs(got - scale) <= scale * 2 ** -7, `scale[${row}] is ${got}, not ${scale}`)
    for (let i = 0; i < columns; i++) {
      const code = roundE4m3(Math.fround(normed[i]! / scale))
      const out = actual.out[row * columns + i]!
      if (out === code) continue
      differing++
      const step = Math.max(2 ** -9, Math.abs(code) * 2 ** -3)
      assert.ok(Math.abs(out - code) <= step, `out[${row}, ${i}] is ${out}, not ${code}`)
    }
  }
  assert.ok(differing <= 0.02 * x.length, `${differing} of ${x.length} codes differ`)
}
