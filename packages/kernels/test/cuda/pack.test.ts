import { dequantizeInt4, f32ToBf16Bits, f32ToE4m3Bits, type Int4Tensor } from '@fireq/formats'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { CudaDevice } from '../../src/cuda/device.js'
import { packedBytes, packInt4 } from '../../src/cuda/pack-int4.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { Random } from '../conformance/random.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { unpackBlocks } from './packed-int4.js'
import { describeFake, fakeFactory } from './support.js'

const seed = Date.now() % 2 ** 32

interface Shape {
  readonly n: number
  readonly k: number
  readonly groupSize?: number
  readonly scale?: 'bf16' | 'e4m3' | 'f32'
  readonly minus8?: boolean
  readonly channelScale?: (row: number) => number
}

function randomTensor(
  random: Random,
  { n, k, groupSize = 128, scale = 'bf16', minus8 = true, channelScale }: Shape,
): Int4Tensor {
  const nibble = (): number => random.int(minus8 ? 0 : 1, 15)
  const sigma = Array.from({ length: (n * k) / groupSize }, () => random.normal() * 2 ** random.int(-8, 5) || 1)
  const groupScale: Int4Tensor['groupScale'] =
    scale === 'f32'
      ? { dtype: scale, data: Float32Array.from(sigma) }
      : scale === 'bf16'
        ? { dtype: scale, data: Uint16Array.from(sigma, f32ToBf16Bits) }
        : { dtype: scale, data: Uint8Array.from(sigma, f32ToE4m3Bits) }
  return {
    kind: 'int4',
    shape: [n, k],
    groupSize,
    codes: Uint8Array.from({ length: (n * k) / 2 }, () => nibble() | (nibble() << 4)),
    groupScale,
    ...(channelScale && { channelScale: Float32Array.from({ length: n }, (_, row) => channelScale(row)) }),
  }
}

/** Row r of the packed weight is this row of the tensor. */
function sourceRow(r: number, n: number, interleaved: boolean): number {
  if (!interleaved) return r
  const eight = Math.floor(r / 16) * 8 + (r % 8)
  return r % 16 < 8 ? eight : n / 2 + eight
}

describeFake(`packing INT4 weights (seed ${seed})`, () => {
  const random = new Random(seed)
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream

  beforeEach(() => {
    driver = fakeFactory().make({ memory: 2 ** 28 })
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
  })

  afterEach(() => {
    driver.fail('', 0)
    expect(device.memory().blocks).toBe(0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  async function roundTrip(tensor: Int4Tensor, interleaved = false) {
    const { blocks, full, scaleBytes } = await packInt4(stream, tensor, interleaved, 'packing')
    const bytes = await stream.download(blocks, new Uint8Array(blocks.bytes), 'blocks')
    blocks.dispose()
    expect(bytes.length).toBe(packedBytes(...tensor.shape, tensor.groupSize, scaleBytes))
    return { ...unpackBlocks(bytes, tensor.shape, full, scaleBytes, tensor.groupSize), full, scaleBytes }
  }

  /** The packed values are the tensor's, and nothing divides by 0. */
  function expectValues(tensor: Int4Tensor, { codes, scales }: { codes: Int8Array; scales: Float32Array }, i = false) {
    const { shape, groupSize } = tensor
    const [n, k] = shape
    const wanted = dequantizeInt4(tensor)
    let wrong = 0
    for (let row = 0; row < codes.length / k; row++) {
      for (let column = 0; column < k; column++) {
        const scale = scales[row * (k / groupSize) + Math.floor(column / groupSize)]!
        const value = Math.fround(codes[row * k + column]! * scale)
        const expected = row < n ? wanted[sourceRow(row, n, i) * k + column]! : 0
        if (Math.abs(value - expected) > Math.abs(expected) * 2 ** -22 || scale === 0) wrong++
      }
    }
    expect(wrong).toBe(0)
  }

  it.each([
    { n: 16, k: 128 },
    { n: 64, k: 256 },
    { n: 80, k: 384, minus8: false },
    { n: 528, k: 1024 },
    { n: 1040, k: 2176, minus8: false },
    { n: 16, k: 70016 },
    { n: 16, k: 128, groupSize: 32 },
    { n: 80, k: 384, groupSize: 64, minus8: false },
    { n: 528, k: 1024, groupSize: 32, minus8: false },
    { n: 1040, k: 2176, groupSize: 64 },
    { n: 16, k: 70016, groupSize: 32 },
  ])('keeps every value of $n × $k in groups of $groupSize', async (shape) => {
    const tensor = randomTensor(random, shape)
    const packed = await roundTrip(tensor)
    expectValues(tensor, packed)
    expect(packed).toMatchObject({ full: shape.minus8 ?? true, scaleBytes: 2 })
  })

  it('interleaves gate and up by eights', async () => {
    for (const [n, k] of [
      [16, 128],
      [176, 256],
      [4096, 384],
    ] as const) {
      const tensor = randomTensor(random, { n, k, channelScale: (row) => 2 ** -(row % 5) })
      expectValues(tensor, await roundTrip(tensor, true), true)
    }
  })

  it('finds a single −8 at the very end, and none', async () => {
    const tensor = randomTensor(random, { n: 2048, k: 2048, minus8: false })
    expect((await roundTrip(tensor)).full).toBe(false)
    tensor.codes[tensor.codes.length - 1] = 0x0f
    const packed = await roundTrip(tensor)
    expect(packed.full).toBe(true)
    expectValues(tensor, packed)
  })

  it('takes every pair of nibbles in every byte', async () => {
    for (const lowest of [0, 1]) {
      const tensor = randomTensor(random, { n: 512, k: 128 })
      const code = (i: number): number => lowest + (i % (16 - lowest))
      for (let i = 0; i < tensor.codes.length; i++) {
        const j = i + Math.floor(i / 64)
        tensor.codes[i] = code(j) | (code(Math.floor(j / (16 - lowest))) << 4)
      }
      const packed = await roundTrip(tensor)
      expect(packed.full).toBe(lowest === 0)
      expectValues(tensor, packed)
    }
  })

  it.each([
    ['e4m3', undefined, 2],
    ['e4m3', (row: number) => 2 ** -(row % 14), 2],
    ['e4m3', (row: number) => 1 + row / 1024, 4],
    ['bf16', (row: number) => (row % 2 ? -1 : 0.5), 2],
    ['bf16', (row: number) => 1 + row / 1000, 4],
    ['f32', undefined, 4],
  ] as const)('%s scales times a row factor: in as few bytes as hold them', async (scale, channelScale, wanted) => {
    const tensor = randomTensor(random, { n: 96, k: 512, scale, ...(channelScale && { channelScale }) })
    const packed = await roundTrip(tensor)
    expect(packed.scaleBytes).toBe(wanted)
    expectValues(tensor, packed)
  })

  it('keeps zero groups of 32 under the scale before, and names a wrong one by its own number', async () => {
    const tensor = randomTensor(random, { n: 64, k: 256, groupSize: 32, scale: 'f32', minus8: false })
    tensor.groupScale.data.set([0, 0.5, 0, -0.25, 1e-45], 0)
    tensor.codes.fill(0x88, 4 * 16, 5 * 16)
    const packed = await roundTrip(tensor)
    expectValues(tensor, packed)
    expect([...packed.scales.subarray(0, 5)]).toEqual([1, 0.5, 0.5, -0.25, -0.25])
    tensor.groupScale.data[13 * 8 + 7] = Number.NaN
    await expect(packInt4(stream, tensor, false, 'packing')).rejects.toThrow(/received nan at row 13, group 7$/)
  })

  it('leaves row factors out of the scales of products that are looked up', async () => {
    const tensor = randomTensor(random, { n: 64, k: 256, channelScale: (row) => 1 + row / 1000 })
    const { channelScale: _, ...plain } = tensor
    const looked = await roundTrip({ ...tensor, lookupRounding: true })
    expect(looked).toEqual(await roundTrip(plain))
    expect(looked.scaleBytes).toBe(2)
  })

  it('never writes a scale that kernels would divide by in vain', async () => {
    const tensor = randomTensor(random, { n: 64, k: 1024, scale: 'f32', minus8: false })
    const scales = tensor.groupScale.data
    for (let i = 0; i < scales.length; i++) scales[i] = 2 ** random.int(-20, 10) * (i % 2 ? -1 : 1)
    for (const i of [0, 1, 9, 17, 18, 19, 20, 21, 22, 23, 100, 511]) scales[i] = i % 2 ? 0 : -0
    for (let i = 3 * 64; i < 4 * 64; i++) tensor.codes[i] = 0x88 // a group of zeros under a scale that no kernel takes
    scales[3] = 1e-45
    const packed = await roundTrip(tensor)
    expect(packed.scaleBytes).toBe(2)
    expectValues(tensor, packed)
    expect(packed.scales[0]).toBe(1)
    expect(packed.scales[3]).toBe(packed.scales[2])
    expect(packed.scales[9]).toBe(packed.scales[8])
  })

  it.each([
    [
      Number.NaN,
      /^packing: expected every group scale times its row's to be a finite one, but received nan at row 70, g/,
    ],
    [Number.POSITIVE_INFINITY, /a finite one, but received inf at row 70, group 2$/],
    [1e-40, /one of 2⁻¹²⁶ to 2¹²⁶, but received 9\.99995e-41 at row 70, group 2/],
    [2 ** 100, /all of a row within 2⁹⁶ of each other, but received 1.26765e\+30 at row 70, group 2/],
  ])('refuses a scale of %d, and says where it is', async (scale, message) => {
    const tensor = randomTensor(random, { n: 96, k: 512, scale: 'f32' })
    tensor.groupScale.data.fill(0.001)
    tensor.groupScale.data[70 * 4 + 2] = scale
    await expect(packInt4(stream, tensor, false, 'packing')).rejects.toThrow(message)
  })

  it('fails as a whole when memory or a copy fails, and leaves nothing behind', async () => {
    const tensor = randomTensor(random, { n: 2048, k: 2048 })
    driver.fail('cuMemcpyHtoDAsync_v2', 1, 1)
    await expect(packInt4(stream, tensor, false, 'packing')).rejects.toThrow(
      /^packing: cuMemcpyHtoDAsync_v2 failed with CUDA_ERROR_INVALID_VALUE/,
    )
    driver.fail('cuMemAllocHost_v2', 2)
    stream.dispose()
    device.dispose()
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
    await expect(packInt4(stream, tensor, false, 'packing')).rejects.toThrow(/^packing: .*CUDA_ERROR_OUT_OF_MEMORY/)
    driver.fail('', 0)
    expectValues(tensor, await roundTrip(tensor))
  })

  it('leaves the event loop to others', async () => {
    const tensor = randomTensor(random, { n: 8192, k: 4096, minus8: false })
    let turns = 0
    let packing = true
    const turn = (): void => {
      turns++
      if (packing) setImmediate(turn)
    }
    setImmediate(turn)
    const { blocks } = await packInt4(stream, tensor, false, 'packing')
    packing = false
    blocks.dispose()
    expect(turns).toBeGreaterThan(3)
  })
})
