import { type DenseTensor, decodeE4m3, f32ToBf16Bits, type Int4Tensor } from '@fireq/formats'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { PlainKind } from '../../src/cuda/addon-types.js'
import { choosePlain } from '../../src/cuda/choose-gemm.js'
import { DenseLinear } from '../../src/cuda/dense-linear.js'
import { CudaDevice } from '../../src/cuda/device.js'
import { type Fp8Weight, quantizeFp8Weight } from '../../src/cuda/fp8-weight.js'
import { CudaLinear, type PackOptions } from '../../src/cuda/linear.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import { cudaStatus } from '../../src/cuda/status.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { loadAddon } from '../../src/native/load.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

const describeKernels: typeof describeFake = hasKernels ? describeFake : describe.skip
const { addon } = loadAddon()
const kinds = [
  'i4_exact_g32',
  'i4_exact_g64',
  'i4_exact_g128',
  'i4_exact_lookup',
  'e4m3_dense',
  'e4m3_precise',
  'bf16_dense',
] as const satisfies readonly PlainKind[]

function int4(n: number, k: number, changes: Partial<Int4Tensor> = {}): Int4Tensor {
  const { groupSize = 128 } = changes
  return {
    kind: 'int4',
    shape: [n, k],
    groupSize,
    codes: new Uint8Array((n * k) / 2).fill(0x79),
    groupScale: { dtype: 'bf16', data: new Uint16Array((n * k) / groupSize).fill(0x3f80) },
    ...changes,
  }
}

function fp8(n: number, k: number): Fp8Weight {
  return {
    kind: 'e4m3',
    shape: [n, k],
    codes: Uint8Array.from({ length: n * k }, (_, i) => Math.floor(i / k)),
    channelScale: Float32Array.from({ length: n }, (_, row) => row),
  }
}

function bf16(n: number, k: number): DenseTensor {
  return { kind: 'dense', dtype: 'bf16', shape: [n, k], data: new Uint16Array(n * k).fill(0x3f80) }
}

// The parameters' bytes: CUDA 13 aligns tensor maps to 128.
const align = hasKernels && Number.parseInt(cudaStatus().toolkitVersion ?? '0', 10) >= 13 ? 128 : 64
const [exactBytes, denseBytes] = [196, 316].map((bytes) => Math.ceil(bytes / align) * align) as [number, number]

describe.skipIf(!hasKernels)('the choice of a plain kernel', () => {
  const sizes = fc.record({
    kind: fc.constantFrom(...kinds),
    m: fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 100_000 })),
    n: fc.integer({ min: 1, max: 8000 }).map((v) => v * 16),
    k: fc.integer({ min: 1, max: 500 }).map((v) => v * 128),
    multiprocessors: fc.constantFrom(1, 2, 78, 114, 132, 144),
  })
  const names = new Set(addon?.cudaKernels().map(({ name }) => name))

  it('is a kernel of this build, K cut into parts that a cluster takes', () => {
    fc.assert(
      fc.property(sizes, ({ kind, m, n, k, multiprocessors }) => {
        const choice = choosePlain(kind, m, n, k, multiprocessors)
        const { family, features, tokens, split } = choice
        const prefix = family === 'small' ? 'i4_small' : kind
        const codes = kind.startsWith('i4') ? ['_sym_bf16', '_sym_fp32', '_full_bf16', '_full_fp32'] : ['']
        for (const end of codes) expect(names).toContain(`${prefix}_f${features}_t${tokens}${end}`)
        expect(family === 'plain' || (kind === 'i4_exact_g128' && tokens <= 32)).toBe(true)
        expect(split).toBeGreaterThanOrEqual(1)
        expect(split).toBeLessThanOrEqual(Math.min(8, k / 128))
        expect(choosePlain(kind, m, n, k, multiprocessors)).toEqual(choice)
      }),
    )
  })

  it('is none for no tokens', () => {
    for (const kind of kinds) expect(choosePlain(kind, 0, 4096, 4096, 132)).toMatchObject({ family: 'none' })
  })

  it('cuts K where there are few tiles, and takes wide tiles for many tokens', () => {
    expect(choosePlain('bf16_dense', 1, 4096, 4096, 132).split).toBeGreaterThan(1)
    expect(choosePlain('bf16_dense', 1, 128256, 4096, 132)).toMatchObject({ tokens: 16, split: 1 })
    expect(choosePlain('bf16_dense', 4096, 28672, 4096, 132)).toMatchObject({ tokens: 256, split: 1 })
    expect(choosePlain('i4_exact_g128', 4096, 28672, 4096, 132)).toMatchObject({ family: 'plain', split: 1 })
    expect(choosePlain('i4_exact_g128', 16, 4096, 4096, 132)).toMatchObject({ family: 'small', tokens: 16 })
  })

  it('refuses a kind that there is not', () => {
    expect(() => choosePlain('i4_exact_g16' as PlainKind, 1, 16, 128, 132)).toThrow("no kind 'i4_exact_g16'")
    expect(() => choosePlain('bf16_dense', 1, 0, 128, 132)).toThrow(/expected 1 to 2³¹ − 1 for N/)
  })
})

describeKernels('plain linear layers on a pretended GPU', () => {
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
    driver.fail('', 0)
    for (const resource of made) resource.dispose()
    expect(device.memory().blocks).toBe(0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const pack = async (weight: Int4Tensor | Fp8Weight | DenseTensor, options?: PackOptions) => {
    const linear = await CudaLinear.pack(device, stream, weight, options)
    made.push(linear)
    return linear
  }
  const allocate = (bytes: number): CudaBuffer => {
    const buffer = stream.allocate(bytes, 'x')
    made.push(buffer)
    return buffer
  }
  const inputs = ({ shape: [n, k], activations, output }: CudaLinear, tokens: number) => ({
    x: allocate(tokens * k * (activations === 'bf16' ? 2 : 1)),
    out: allocate(tokens * n * (output === 'f32' ? 4 : 2)),
    tokens,
    ...(activations === 'e4m3' && { xScale: allocate(tokens * 4) }),
  })
  const grid = () => [0, 1, 2].map((i) => driver.get('grid', i))
  const word = (index: number) => Number(driver.lastArguments().getBigUint64(8 * index, true))
  const ints = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => driver.lastArguments().getInt32(from + 4 * i, true))

  it.each([
    [int4(512, 1024, { groupSize: 32 }), {}, 'i4_exact_g32'],
    [int4(512, 1024, { groupSize: 64 }), { accumulate: 'fast' }, 'i4_exact_g64'],
    [int4(512, 1024), { accumulate: 'precise' }, 'i4_exact_g128'],
    [int4(512, 1024, { lookupRounding: true }), {}, 'i4_exact_lookup'],
  ] as const)('launches the kernel that promotes, its parameters in order: %#', async (weight, options, kind) => {
    driver.setParameters([exactBytes])
    const layer = await pack(weight, { ...options, bias: new Uint16Array(512) })
    expect(layer).toMatchObject({ accumulate: 'precise', activations: 'e4m3', output: 'bf16' })
    const given = inputs(layer, 700)
    layer.run(stream, { ...given, residual: given.out, dependent: true })
    const { features, tokens, split, sweep } = choosePlain(kind, 700, 512, 1024, 132)
    expect(grid()).toEqual([Math.ceil(700 / tokens) * (512 / features) * split, 1, 1])
    expect([driver.get('cluster'), driver.get('dependent')]).toEqual([split, 1])
    expect([1, 2, 5, 6, 9].map(word)).toEqual([1024, 700, 128, tokens, 3]) // the map of x, its box and swizzle
    for (const i of [0, 16, 17, 20]) expect(word(i)).toBeGreaterThan(0) // x, blocks, xScale, bias
    expect(word(18)).toBe(0) // row factors are in the scales
    expect(word(19)).toBe(word(21)) // the output is the residual
    expect(ints(176, 5)).toEqual([700, 512, 1024, sweep, 0])
  })

  it('takes the small kernels for few tokens, which promote too', async () => {
    driver.setParameters([Math.ceil(180 / align) * align])
    const layer = await pack(int4(4096, 1024), { accumulate: 'precise' })
    layer.run(stream, inputs(layer, 9))
    expect(layer.choose(9)).toMatchObject({ family: 'small', tokens: 16 })
    expect(driver.get('launches')).toBe(1)
  })

  it.each([
    [fp8(256, 384), {}, 'e4m3_dense', 1],
    [fp8(256, 384), { accumulate: 'precise', output: 'f32' }, 'e4m3_precise', 1],
    [bf16(256, 384), {}, 'bf16_dense', 2],
    [bf16(256, 384), { output: 'f32' }, 'bf16_dense', 2],
  ] as const)('launches the kernels of weights as they are: %#', async (weight, options, kind, size) => {
    driver.setParameters([denseBytes])
    const layer = await pack(weight, options)
    const type = weight.kind === 'e4m3' ? 'e4m3' : 'bf16'
    expect(layer).toMatchObject({ activations: type, weight: { kind: type } })
    layer.run(stream, inputs(layer, 40))
    const { tokens, split, sweep } = choosePlain(kind, 40, 256, 384, 132)
    expect(grid()).toEqual([Math.ceil(40 / tokens) * 2 * split, 1, 1])
    expect([1, 2, 5, 6].map(word)).toEqual([384, 256, 128 / size, 128]) // W
    expect([17, 18, 21, 22].map(word)).toEqual([384, 40, 128 / size, tokens]) // x
    expect([32, 33].map((i) => word(i) > 0)).toEqual([type === 'e4m3', type === 'e4m3']) // scales
    expect(ints(296, 5)).toEqual([40, 256, 384, sweep, layer.output === 'f32' ? 1 : 0])
    expect(layer.bytes).toBe(256 * 384 * size + (type === 'e4m3' ? 1024 : 0))
  })

  const loadInterleaved = async (weight: Fp8Weight) => {
    const options = { siluMul: true, accumulate: 'fast', output: 'bf16', bias: null } as const
    const { buffers } = await DenseLinear.load(device, stream, weight, options, 'test')
    made.push(...buffers)
    const [data, factors] = await Promise.all(
      buffers.map((buffer) => stream.download(buffer, new Uint8Array(buffer.bytes), 'test')),
    )
    return { data: data!, factors: new Float32Array(factors!.buffer) }
  }

  // 2 MiB are 256 rows of the largest.
  it.each([
    [64, 128],
    [1104, 8192],
  ])('puts %d rows of %d and their factors in the order of SiLU(gate) · up', async (n, k) => {
    const codes = Uint8Array.from({ length: n * k }, (_, i) => (i / k) & 255)
    const { data, factors } = await loadInterleaved({ ...fp8(n, k), codes })
    const wanted = Array.from({ length: n }, (_, i) => (i % 16 < 8 ? 0 : n / 2) + Math.floor(i / 16) * 8 + (i % 8))
    expect([...factors]).toEqual(wanted)
    for (const [row, source] of wanted.entries()) {
      expect([data[row * k], data[(row + 1) * k - 1]]).toEqual([source & 255, source & 255])
    }
  })

  it('tells the kernel of SiLU(gate) · up', async () => {
    for (const [weight, bytes, at] of [
      [fp8(64, 128), denseBytes, 296],
      [int4(64, 128, { groupSize: 64 }), exactBytes, 176],
    ] as const) {
      driver.setParameters([bytes])
      const layer = await pack(weight, { siluMul: true })
      layer.run(stream, inputs(layer, 3))
      expect(ints(at, 5).at(-1)).toBe(2)
    }
  })

  it('keeps row factors apart from products that are looked up', async () => {
    driver.setParameters([exactBytes])
    const channelScale = Float32Array.from({ length: 64 }, (_, row) => row + 1)
    const layer = await pack(int4(64, 128, { lookupRounding: true, channelScale }))
    expect(layer.bytes).toBe(4224 + 256)
    layer.run(stream, inputs(layer, 2))
    expect(word(18)).toBeGreaterThan(0)
    expect(layer.weight).toMatchObject({ kind: 'int4', lookupRounding: true, scale: 'bf16' })
  })

  it.each([
    [
      int4(64, 128),
      { output: 'f32' },
      /INT4 weight \[64, 128\]: expected output bf16 of an INT4 weight but received f32/,
    ],
    [bf16(64, 128), { output: 'f32', siluMul: true }, /expected output bf16 of SiLU\(gate\) · up but received f32/],
    [bf16(64, 128), { output: 'f16' as 'f32' }, /expected output 'bf16' or 'f32' but received f16/],
    [bf16(64, 128), { accumulate: 'exact' as 'fast' }, /expected accumulate 'fast' or 'precise' but received exact/],
    [bf16(64, 128), { activations: 'e4m3' }, /BF16 weight \[64, 128\]: expected activations 'bf16' but received e4m3/],
    [bf16(40, 128), {}, /expected N a multiple of 16 but received 40/],
    [bf16(64, 64), {}, /expected K a multiple of 128 but received 64/],
    [{ ...bf16(64, 128), shape: [8192] }, {}, /BF16 weight \[8192\]: expected a matrix but received 1 dimensions/],
    [{ ...bf16(64, 128), data: new Uint16Array(3) }, {}, /expected 8192 values but received 3/],
    [{ ...fp8(64, 128), codes: new Uint8Array(3) }, {}, /FP8 weight \[64, 128\]: expected 8192 codes but received 3/],
    [{ ...fp8(64, 128), channelScale: new Float32Array(3) }, {}, /expected 64 channel scales but received 3/],
    [
      { ...fp8(64, 128), channelScale: new Float32Array(64).fill(Number.NaN, 5) },
      {},
      /expected finite channel scales but received NaN at row 5/,
    ],
    [
      { kind: 'dense', dtype: 'f32', shape: [16, 128], data: new Float32Array(2048) },
      {},
      /F32 weight \[16, 128\]: expected BF16 values but received f32/,
    ],
  ] as [Int4Tensor | Fp8Weight | DenseTensor, PackOptions, RegExp][])(
    'refuses what kernels can not take, before anything is allocated for long: %#',
    async (weight, options, message) => {
      const bias = new Uint16Array(weight.shape[0]!)
      await expect(CudaLinear.pack(device, stream, weight, { ...options, bias })).rejects.toThrow(message)
    },
  )

  it('refuses scales and residuals that do not go with the layer', async () => {
    const layer = await pack(bf16(64, 128), { output: 'f32' })
    const given = inputs(layer, 2)
    const what = 'linear of x [2, 128], BF16 weight [64, 128]'
    expect(() => layer.run(stream, { ...given, xScale: given.x })).toThrow(`${what}: expected no xScale for x in BF16`)
    expect(() => layer.run(stream, { ...given, residual: given.out })).toThrow(/another residual than out in FP32/)
    expect(() => layer.run(stream, { ...given, out: allocate(511) })).toThrow(
      /out of at least 512 bytes but received 511/,
    )
    expect(() => layer.run(stream, { ...given, x: allocate(511) })).toThrow(/x of at least 512 bytes but received 511/)
    const quantized = await pack(fp8(64, 128))
    const { xScale: _, ...unscaled } = inputs(quantized, 2)
    expect(() => quantized.run(stream, unscaled)).toThrow(/expected an xScale for x in E4M3 but received none/)
    expect(driver.get('launches')).toBe(0)
  })

  it('does nothing for no tokens', async () => {
    for (const weight of [int4(64, 128, { groupSize: 32 }), fp8(64, 128), bf16(64, 128)]) {
      const layer = await pack(weight)
      layer.run(stream, { ...inputs(layer, 3), tokens: 0 })
    }
    expect(driver.get('launches')).toBe(0)
  })

  it('leaves nothing behind when a copy or an allocation fails', async () => {
    for (const weight of [int4(64, 128, { lookupRounding: true, channelScale: new Float32Array(64) }), fp8(64, 128)]) {
      for (const skip of [0, 1, 2]) {
        driver.fail('cuMemcpyHtoDAsync_v2', 1, skip)
        await expect(CudaLinear.pack(device, stream, weight, { bias: new Uint16Array(64) })).rejects.toThrow(
          /^packing of an (INT4|FP8) weight \[64, 128\].*CUDA_ERROR_INVALID_VALUE/,
        )
        expect(device.memory().blocks).toBe(0)
      }
    }
  })
})

describe('rounding a weight to FP8', () => {
  it('takes a scale a row', () => {
    const data = Float32Array.of(448, -1, 0.5, 2, 0, 0, 0, 0, 1, 2, 3, -896)
    const { codes, channelScale, shape } = quantizeFp8Weight({ kind: 'dense', dtype: 'f32', shape: [3, 4], data })
    expect(shape).toEqual([3, 4])
    expect([...channelScale]).toEqual([1, 1, 2])
    expect([...decodeE4m3(codes)]).toEqual([448, -1, 0.5, 2, 0, 0, 0, 0, 0.5, 1, 1.5, -448])
  })

  it('is within half a step of E4M3, and takes BF16', () => {
    const values = Float32Array.from({ length: 4 * 256 }, (_, i) => Math.sin(i * 1.7) * 2 ** (i % 3))
    const data = Uint16Array.from(values, f32ToBf16Bits)
    const { codes, channelScale } = quantizeFp8Weight({ kind: 'dense', dtype: 'bf16', shape: [4, 256], data })
    const decoded = decodeE4m3(codes)
    for (const [i, value] of values.entries()) {
      const scale = channelScale[Math.floor(i / 256)]!
      expect(Math.abs(decoded[i]! * scale - value)).toBeLessThanOrEqual(Math.abs(value) * 2 ** -3.9 + scale * 2 ** -10)
    }
  })

  it('refuses what is no matrix', () => {
    const tensor = { kind: 'dense', dtype: 'f32', shape: [4], data: new Float32Array(4) } as const
    expect(() => quantizeFp8Weight(tensor)).toThrow('Expected a matrix to round to FP8 but received shape [4]')
  })
})
