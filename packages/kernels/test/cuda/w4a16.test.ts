import { dequantizeInt4, type Int4Tensor } from '@fireq/formats'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { chooseW4a16 } from '../../src/cuda/choose-gemm.js'
import { CudaDevice } from '../../src/cuda/device.js'
import { CudaLinear, type PackOptions } from '../../src/cuda/linear.js'
import { packInt4 } from '../../src/cuda/pack-int4.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import { cudaStatus } from '../../src/cuda/status.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { w4a16KernelName } from '../../src/cuda/w4a16-gemm.js'
import { loadAddon } from '../../src/native/load.js'
import { Random } from '../conformance/random.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { unpackBf16Blocks } from './packed-int4.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

const describeKernels: typeof describeFake = hasKernels ? describeFake : describe.skip
const seed = Date.now() % 2 ** 32
const { addon } = loadAddon()
const names = new Set(addon?.cudaKernels().map(({ name }) => name))

function randomTensor(random: Random, n: number, k: number): Int4Tensor {
  return {
    kind: 'int4',
    shape: [n, k],
    groupSize: 128,
    codes: Uint8Array.from({ length: (n * k) / 2 }, () => random.int(0, 255)),
    groupScale: { dtype: 'bf16', data: Uint16Array.from({ length: (n * k) / 128 }, () => random.int(0x3c00, 0x4000)) },
  }
}

describe.skipIf(addon === undefined)('the choice of a kernel for INT4 × BF16', () => {
  const sizes = fc.record({
    m: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 100_000 })),
    n: fc.integer({ min: 1, max: 8000 }).map((v) => v * 16),
    k: fc.integer({ min: 1, max: 500 }).map((v) => v * 128),
    multiprocessors: fc.constantFrom(1, 2, 78, 114, 132, 144),
  })

  it.skipIf(names.size === 0)('is a kernel of this build, K cut into parts that a cluster takes', () => {
    fc.assert(
      fc.property(sizes, ({ m, n, k, multiprocessors }) => {
        const choice = chooseW4a16(m, n, k, multiprocessors)
        for (const scaleBytes of [2, 4] as const) {
          for (const siluMul of [false, true]) {
            expect(names).toContain(w4a16KernelName(choice, { scaleBytes, siluMul }))
          }
        }
        expect(choice.split).toBeGreaterThanOrEqual(1)
        expect(choice.split).toBeLessThanOrEqual(Math.min(8, k / 128))
        expect(choice.family === 'large' && choice.split > 1).toBe(false)
        if (m <= 16) expect(choice.tokens).toBe(m <= 8 ? 8 : 16)
      }),
    )
  })

  // Measured best on an H200.
  it.each([
    [1, 4096, 4096, { family: 'small', features: 128, tokens: 8, split: 6 }],
    [16, 12288, 4096, { family: 'small', features: 128, tokens: 16, split: 2 }],
    [32, 22016, 4096, { family: 'small', features: 192, tokens: 32, split: 1 }],
    [64, 4096, 14336, { family: 'small', features: 192, tokens: 64, split: 5 }],
    [128, 4096, 4096, { family: 'small', features: 128, tokens: 128, split: 3 }],
    [256, 12288, 4096, { family: 'small', features: 192, tokens: 128, split: 1 }],
    [1024, 4096, 4096, { family: 'large', features: 128, tokens: 256, split: 1 }],
    [4096, 28672, 4096, { family: 'large', features: 128, tokens: 256, split: 1 }],
  ] as const)('takes for %d × %d × %d what was the fastest', (m, n, k, wanted) => {
    expect(chooseW4a16(m, n, k, 132)).toMatchObject(wanted)
  })

  it('is none for no tokens', () => {
    expect(chooseW4a16(0, 4096, 4096, 132)).toMatchObject({ family: 'none' })
  })
})

describeKernels(`INT4 × BF16 on a pretended GPU (seed ${seed})`, () => {
  const random = new Random(seed)
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream
  let made: { dispose(): void }[]

  beforeEach(() => {
    driver = fakeFactory().make()
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
    made = []
  })

  afterEach(() => {
    for (const resource of made) resource.dispose()
    expect(device.memory().blocks).toBe(0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const pack = async (tensor: Int4Tensor, options?: PackOptions) => {
    const linear = await CudaLinear.pack(device, stream, tensor, { activations: 'bf16', ...options })
    made.push(linear)
    return linear
  }
  const allocate = (bytes: number): CudaBuffer => {
    const buffer = stream.allocate(bytes, 'x')
    made.push(buffer)
    return buffer
  }
  const inputs = (tokens: number, n: number, k: number) => ({
    x: allocate(tokens * k * 2),
    out: allocate(tokens * n * 2),
    tokens,
  })
  const align = Number.parseInt(cudaStatus().toolkitVersion ?? '0', 10) >= 13 ? 128 : 64
  const padded = (bytes: number): number => Math.ceil(bytes / align) * align
  const word = (index: number) => Number(driver.lastArguments().getBigUint64(8 * index, true))
  const ints = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => driver.lastArguments().getInt32(from + 4 * i, true))
  const grid = () => [0, 1, 2].map((i) => driver.get('grid', i))

  it('packs every value where the tensor cores take it, gate and up interleaved or not', async () => {
    for (const [n, k] of [
      [16, 128],
      [80, 384],
      [528, 1024],
    ] as const) {
      for (const interleave of [false, true]) {
        const tensor = randomTensor(random, n, k)
        const { blocks, full, scaleBytes } = await packInt4(stream, tensor, interleave, 'packing', 'bf16')
        made.push(blocks)
        expect({ full, scaleBytes }).toEqual({ full: true, scaleBytes: 2 })
        const bytes = await stream.download(blocks, new Uint8Array(blocks.bytes), 'blocks')
        const { codes, scales } = unpackBf16Blocks(bytes, tensor.shape, scaleBytes)
        const wanted = dequantizeInt4(tensor)
        const source = (row: number): number => {
          if (!interleave) return row
          return (row % 16 < 8 ? 0 : n / 2) + Math.floor(row / 16) * 8 + (row % 8)
        }
        let wrong = 0
        codes.forEach((code, i) => {
          const [row, column] = [Math.floor(i / k), i % k]
          const value = Math.fround(code * scales[row * (k / 128) + Math.floor(column / 128)]!)
          if (value !== (row < n ? wanted[source(row) * k + column]! : 0)) wrong++
        })
        expect(wrong).toBe(0)
      }
    }
  })

  it('launches the kernel for few tokens with its parameters in order', async () => {
    driver.setParameters([padded(180)])
    const layer = await pack(randomTensor(random, 4096, 1024))
    expect(layer).toMatchObject({ activations: 'bf16', accumulate: 'precise' })
    expect(layer.weight).toEqual({ kind: 'int4', groupSize: 128, codes: '-8…7', scale: 'bf16', lookupRounding: false })
    layer.run(stream, { ...inputs(5, 4096, 1024), dependent: true })
    const { split } = layer.choose(5)
    expect(grid()).toEqual([32 * split, 1, 1])
    expect([driver.get('cluster'), driver.get('dependent')]).toEqual([split, 1])
    expect([1, 2, 3].map(word)).toEqual([64, 5, 16]) // the map: [K / 64, M, 64]
    for (const i of [0, 16, 18]) expect(word(i)).toBeGreaterThan(0) // x, blocks, out
    expect([17, 19, 20].map(word)).toEqual([0, 0, 0]) // no token scales, no bias, no residual
    expect(ints(168, 3)).toEqual([5, 4096, 1024])
  })

  it('launches the kernel for many tokens with its parameters in order', async () => {
    driver.setParameters([padded(296)])
    const layer = await pack(randomTensor(random, 4096, 512), { bias: new Uint16Array(4096) })
    const given = inputs(2048, 4096, 512)
    layer.run(stream, { ...given, residual: given.out })
    expect(layer.choose(2048)).toMatchObject({ family: 'large', tokens: 256 })
    expect([driver.get('cluster'), driver.get('dependent')]).toEqual([1, 0])
    expect([1, 2, 3].map(word)).toEqual([64, 2048, 8])
    for (const i of [0, 16, 32, 33, 34]) expect(word(i)).toBeGreaterThan(0) // x, out, blocks, bias, residual
    expect(ints(280, 4)).toEqual([2048, 4096, 512, 8])
  })

  it('does nothing for no tokens', async () => {
    const layer = await pack(randomTensor(random, 64, 128))
    const before = driver.get('launches')
    layer.run(stream, { ...inputs(1, 64, 128), tokens: 0 })
    expect(driver.get('launches')).toBe(before)
  })

  it('says what it does not take', async () => {
    const tensor = randomTensor(random, 64, 128)
    await expect(pack({ ...tensor, lookupRounding: true })).rejects.toThrow(
      'expected groups of 128 without look-up rounding for BF16 activations but received look-up rounding',
    )
    const groupScale = { dtype: 'bf16', data: new Uint16Array(256).fill(0x3f80) } as const
    await expect(pack({ ...tensor, groupSize: 32, groupScale })).rejects.toThrow('but received groups of 32')
    const fp8 = {
      kind: 'e4m3',
      shape: [16, 128],
      codes: new Uint8Array(2048),
      channelScale: new Float32Array(16),
    } as const
    await expect(CudaLinear.pack(device, stream, fp8, { activations: 'bf16' })).rejects.toThrow(
      "expected activations 'e4m3' but received bf16",
    )
    const layer = await pack(tensor)
    const { x, out } = inputs(1, 64, 128)
    expect(() => layer.run(stream, { x, out, tokens: 1, xScale: out })).toThrow('expected no xScale for x in BF16')
    expect(() => layer.run(stream, { x: out, out, tokens: 9 })).toThrow(/expected x of at least 2304 bytes/)
  })
})
