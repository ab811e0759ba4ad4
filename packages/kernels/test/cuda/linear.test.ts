import type { Int4Tensor } from '@fireq/formats'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { chooseGemm } from '../../src/cuda/choose-gemm.js'
import { CudaDevice } from '../../src/cuda/device.js'
import { CudaLinear, type PackOptions } from '../../src/cuda/linear.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import { cudaStatus } from '../../src/cuda/status.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

const describeKernels: typeof describeFake = hasKernels ? describeFake : describe.skip

function tensorOf(n: number, k: number, changes: Partial<Int4Tensor> = {}): Int4Tensor {
  return {
    kind: 'int4',
    shape: [n, k],
    groupSize: 128,
    codes: new Uint8Array((n * k) / 2).fill(0x79),
    groupScale: { dtype: 'bf16', data: new Uint16Array((n * k) / 128).fill(0x3f80) },
    ...changes,
  }
}

// The parameters' bytes: CUDA 13 aligns tensor maps to 128.
const align = hasKernels && Number.parseInt(cudaStatus().toolkitVersion ?? '0', 10) >= 13 ? 128 : 64
const [smallBytes, largeBytes] = [180, 456].map((bytes) => Math.ceil(bytes / align) * align) as [number, number]

describeKernels('a linear layer on a pretended GPU', () => {
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream
  let buffers: CudaBuffer[]
  let linear: CudaLinear | undefined

  beforeEach(() => {
    driver = fakeFactory().make()
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
    buffers = []
  })

  afterEach(() => {
    driver.fail('', 0)
    linear?.dispose()
    linear = undefined
    for (const buffer of buffers) buffer.dispose()
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const pack = async (n: number, k: number, options?: PackOptions) => {
    linear = await CudaLinear.pack(device, stream, tensorOf(n, k), options)
    return linear
  }
  const inputs = (tokens: number, n: number, k: number) => {
    const [x, xScale, out] = [tokens * k, tokens * 4, tokens * n * 2].map((bytes) => stream.allocate(bytes, 'x'))
    buffers.push(x!, xScale!, out!)
    return { x: x!, xScale: xScale!, out: out!, tokens }
  }
  const cluster = () => driver.get('cluster')
  const grid = () => [0, 1, 2].map((i) => driver.get('grid', i))
  const word = (index: number) => Number(driver.lastArguments().getBigUint64(8 * index, true))
  const ints = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => driver.lastArguments().getInt32(from + 4 * i, true))

  it('launches the kernel for few tokens with its parameters in order', async () => {
    driver.setParameters([smallBytes])
    const layer = await pack(4096, 1024)
    const given = inputs(5, 4096, 1024)
    layer.run(stream, { ...given, dependent: true })
    const { split } = chooseGemm(5, 4096, 1024, 132)
    expect(grid()).toEqual([32 * split, 1, 1])
    expect([cluster(), driver.get('dependent')]).toEqual([split, 1])
    expect([driver.get('sharedBytes'), driver.get('maxShared')]).toEqual([100_000, 100_000])
    expect([1, 2, 3].map((i) => word(i))).toEqual([128, 5, 8]) // the map: [K / 128, M, 128]
    expect([5, 6, 7].map((i) => word(i))).toEqual([128, 8, 2]) // its box
    for (const i of [0, 16, 17, 18]) expect(word(i)).toBeGreaterThan(0) // x, blocks, xScale, out
    expect([19, 20].map((i) => word(i))).toEqual([0, 0]) // no bias, no residual
    expect(ints(168, 6)).toEqual([5, 4096, 1024, 0, 0, 0])
  })

  it('launches the kernel for many tokens with its parameters in order, and memory for sums where tiles are cut', async () => {
    driver.setParameters([largeBytes])
    const layer = await pack(512, 2048, { bias: new Uint16Array(512) })
    const many = [1000, 2000, 4000, 8000, 9000, 16384].filter((m) => chooseGemm(m, 512, 2048, 132).family === 'large')
    expect(new Set(many.map((m) => chooseGemm(m, 512, 2048, 132).cut > 0)).size).toBe(2)
    for (const tokens of many) {
      const given = inputs(tokens, 512, 2048)
      layer.run(stream, { ...given, residual: given.out })
      const choice = chooseGemm(tokens, 512, 2048, 132)
      expect(grid()).toEqual([2 * choice.clusters, 1, 1])
      expect(cluster()).toBe(1) // compiled in
      expect([1, 2, 5, 6, 9].map((i) => word(i))).toEqual([2048, tokens, 128, choice.tokens / 2, 3])
      expect([17, 18, 21, 22, 25].map((i) => word(i))).toEqual([512, tokens, 64, 32, 3])
      for (let i = 16; i < 32; i++) expect(word(i + 16)).toBe(word(i)) // the output is the residual
      expect(word(51)).toBe(word(16))
      expect(word(50)).toBeGreaterThan(0)
      expect([52, 53].map((i) => word(i) > 0)).toEqual([choice.cut > 0, choice.cut > 0])
      expect(ints(432, 6)).toEqual([tokens, 512, 2048, choice.sweep, choice.cut, 0])
    }
  })

  it('halves the output of SiLU(gate) · up', async () => {
    driver.setParameters([largeBytes])
    const layer = await pack(512, 256, { siluMul: true })
    layer.run(stream, inputs(16384, 256, 256))
    expect([17, 18, 21, 22, 25].map((i) => word(i))).toEqual([256, 16384, 32, 32, 2])
    expect(ints(432, 3)).toEqual([16384, 512, 256])
    expect(ints(452, 1)).toEqual([1])
  })

  it('puts a bias in the order of interleaved rows', async () => {
    driver.setParameters([smallBytes])
    const bias = Uint16Array.from({ length: 32 }, (_, i) => i)
    const layer = await pack(32, 128, { siluMul: true, bias })
    layer.run(stream, inputs(1, 16, 128))
    const address = word(19)
    expect(address).toBeGreaterThan(0)
    expect(layer.bytes).toBe(4224 + 64)
    using probe = stream.allocate(64, 'probe')
    expect(probe.bytes).toBe(64)
  })

  it('is described by shape, bytes, codes and scales', async () => {
    const layer = await pack(80, 256)
    expect(layer).toMatchObject({
      shape: [80, 256],
      bytes: 4 * 4224,
      weight: { kind: 'int4', groupSize: 128, codes: '-7…7', scale: 'bf16', lookupRounding: false },
      activations: 'e4m3',
      accumulate: 'fast',
      output: 'bf16',
      siluMul: false,
    })
    const full = await CudaLinear.pack(
      device,
      stream,
      tensorOf(16, 128, {
        codes: new Uint8Array(1024),
        groupScale: { dtype: 'f32', data: new Float32Array(16).fill(0.1) },
      }),
    )
    expect(full).toMatchObject({ bytes: 4096 + 256, weight: { codes: '-8…7', scale: 'f32' } })
    full.dispose()
    full.dispose()
  })

  it('does nothing for no tokens, and can be captured', async () => {
    driver.setParameters([smallBytes])
    const layer = await pack(64, 128)
    const given = inputs(3, 64, 128)
    layer.run(stream, { ...given, tokens: 0 })
    expect(driver.get('launches')).toBe(0)
    using graph = stream.capture(() => layer.run(stream, given))
    expect(driver.get('launches')).toBe(0)
    stream.replay(graph, 'linear')
    stream.replay(graph, 'linear')
    expect(driver.get('launches')).toBe(2)
  })

  it('is kept by the graph it was captured in', async () => {
    driver.setParameters([smallBytes])
    const layer = await pack(64, 128)
    const given = inputs(3, 64, 128)
    const graph = stream.capture(() => layer.run(stream, given))
    const before = device.memory().blocks
    layer.dispose()
    expect(device.memory().blocks).toBe(before)
    graph.dispose()
    expect(device.memory().blocks).toBe(before - 1)
  })

  it('refuses what does not fit, with op and shapes', async () => {
    const layer = await pack(64, 256)
    const given = inputs(3, 64, 256)
    const what = 'linear of x [3, 256], INT4 weight [64, 256]'
    const small = stream.allocate(8, 'small')
    buffers.push(small)
    for (const [name, bytes] of [
      ['x', 768],
      ['xScale', 12],
      ['out', 384],
      ['residual', 384],
    ] as const) {
      expect(() => layer.run(stream, { ...given, [name]: small })).toThrow(
        `${what}: expected ${name} of at least ${bytes} bytes but received 8`,
      )
    }
    for (const tokens of [-1, 0.5, 2 ** 31, Number.NaN]) {
      expect(() => layer.run(stream, { ...given, tokens })).toThrow(/expected a whole number of tokens below 2³¹/)
    }
    driver.setParameters([300])
    expect(() => layer.run(stream, given)).toThrow(/argument 0 of kernel i4_small_\w+ has 300 bytes, but received \d+/)
    driver.setParameters([smallBytes])
    driver.fail('cuTensorMapEncodeTiled', 1)
    expect(() => layer.run(stream, given)).toThrow(
      `${what}: describing a tensor of 128 × 3 × 2 in boxes of 128 × 8 × 2: cuTensorMapEncodeTiled failed with CUDA_ERROR_INVALID_VALUE`,
    )
    driver.fail('cuModuleGetGlobal_v2', 1)
    layer.dispose()
    expect(() => layer.run(stream, given)).toThrow('The CUDA buffer was disposed')
  })

  it('refuses a residual for SiLU(gate) · up', async () => {
    const layer = await pack(64, 128, { siluMul: true })
    const given = inputs(1, 32, 128)
    expect(() => layer.run(stream, { ...given, residual: given.out })).toThrow(/expected no residual/)
  })

  it.each([
    [tensorOf(64, 128, { shape: [63, 128] }), /expected N a multiple of 16 but received 63/],
    [tensorOf(64, 128, { shape: [64, 192] }), /expected K a multiple of 128 but received 192/],
    [tensorOf(64, 128, { shape: [0, 128] }), /expected N a multiple of 16 but received 0/],
    [tensorOf(64, 128, { groupSize: 16 }), /expected groups of 32, 64 or 128 but received 16/],
    [tensorOf(64, 128, { groupSize: 64 }), /expected 128 group scales but received 64/],
    [tensorOf(64, 128, { groupSize: 64, lookupRounding: true }), /groups of 128 with look-up rounding but received 64/],
    [tensorOf(64, 128, { codes: new Uint8Array(10) }), /\[64, 128\]: expected 4096 bytes of codes but received 10/],
    [tensorOf(64, 128, { groupScale: { dtype: 'bf16', data: new Uint16Array(3) } }), /64 group scales but received 3/],
    [tensorOf(64, 128, { channelScale: new Float32Array(3) }), /64 channel scales but received 3/],
  ])('refuses a weight that kernels can not take: %#', async (tensor, message) => {
    await expect(CudaLinear.pack(device, stream, tensor)).rejects.toThrow(message)
    await expect(CudaLinear.pack(device, stream, tensorOf(16, 128), { bias: new Uint16Array(3) })).rejects.toThrow(
      /expected a bias of 16 but received 3/,
    )
  })
})
