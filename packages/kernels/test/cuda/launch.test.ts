import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CudaDevice } from '../../src/cuda/device.js'
import { quantizeTokens, rmsNormQuantize, rowBlock } from '../../src/cuda/quantize.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

describe('the block for a row', () => {
  it('has a thread for every vector, and no warp without one', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2048 }), fc.constantFrom(512, 1024), (eighths, most) => {
        const { vectors, threads } = rowBlock(1, eighths * 8, most, 'x')
        expect([1, 2, 4]).toContain(vectors)
        expect(threads % 32).toBe(0)
        expect(threads).toBeLessThanOrEqual(most)
        expect(threads * vectors).toBeGreaterThanOrEqual(eighths)
        expect((threads - 32) * vectors).toBeLessThan(eighths)
      }),
    )
  })

  it.each([
    [128, 1, 32],
    [2048, 1, 256],
    [4096, 2, 256],
    [8192, 4, 256],
    [14336, 4, 448],
    [28672, 4, 896],
  ])('of %d columns has %d vectors a thread and %d threads', (columns, vectors, threads) => {
    expect(rowBlock(5, columns, 1024, 'x')).toEqual({ vectors, threads })
  })

  it('is wider if wanted, for few rows', () => {
    expect(rowBlock(5, 14336, 1024, 'x', 1024)).toEqual({ vectors: 2, threads: 896 })
    expect(rowBlock(5, 4096, 1024, 'x', 1024)).toEqual({ vectors: 1, threads: 512 })
  })

  it.each([0, 4, 100, 32776, 8.5, Number.NaN])('refuses %d columns', (columns) => {
    expect(() => rowBlock(1, columns, 1024, 'x [1, ?]')).toThrow(
      /^x \[1, \?\]: expected columns a multiple of 8, at most 32768/,
    )
  })

  it.each([-1, 0.5, 2 ** 31])('refuses %d rows', (rows) => {
    expect(() => rowBlock(rows, 8, 1024, 'x')).toThrow(/expected a whole number of rows/)
  })
})

const describeKernels: typeof describeFake = hasKernels ? describeFake : describe.skip

describeKernels('launching', () => {
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream

  beforeEach(() => {
    driver = fakeFactory().make()
    driver.setParameters([8, 8, 8, 4])
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
  })

  afterEach(() => {
    driver.fail('', 0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const lastLaunch = () => ({
    grid: [0, 1, 2].map((i) => driver.get('grid', i)),
    block: [0, 1, 2].map((i) => driver.get('block', i)),
    sharedBytes: driver.get('sharedBytes'),
    cluster: driver.get('cluster'),
    dependent: driver.get('dependent'),
  })

  it('passes grid, block, clusters, shared memory and dependence on', () => {
    driver.setParameters([])
    const kernel = device.kernel('quantize_tokens_2')
    stream.launch(kernel, { grid: [3, 2, 1], block: [64, 1, 2] }, [], 'plain')
    expect(lastLaunch()).toEqual({ grid: [3, 2, 1], block: [64, 1, 2], sharedBytes: 0, cluster: 1, dependent: 0 })
    expect(driver.get('maxShared')).toBe(0)
    const shape = { grid: [8, 1, 1], block: [128, 1, 1], cluster: 4, sharedBytes: 200_000, dependent: true } as const
    stream.launch(kernel, shape, [], 'all')
    expect(lastLaunch()).toEqual({ ...shape, dependent: 1 })
    expect(driver.get('maxShared')).toBe(200_000)
    expect(() => stream.launch(kernel, { ...shape, sharedBytes: 300_000 }, [], 'too much')).toThrow(
      /^too much: 300000 bytes of shared memory for quantize_tokens_2: cuFuncSetAttribute failed/,
    )
  })

  it('loads a file of kernels once', () => {
    const [one, same, other] = ['quantize_tokens_1', 'quantize_tokens_1', 'rms_norm_quantize_1'].map((name) =>
      device.kernel(name),
    )
    expect(one).toBe(same)
    expect(one).not.toBe(other)
    expect(driver.get('modules')).toBe(1)
  })

  it('names a kernel that is not there', () => {
    expect(() => device.kernel('gemm_imaginary')).toThrow("there is no kernel 'gemm_imaginary'")
  })

  it('refuses arguments that are not what the kernel takes', () => {
    const kernel = device.kernel('quantize_tokens_1')
    const x = stream.allocate(64, 'x')
    const shape = { grid: [1, 1, 1], block: [32, 1, 1] } as const
    const width = { type: 'i32', value: 8 } as const
    expect(() => stream.launch(kernel, shape, [x, x], 'short')).toThrow(
      'short: kernel quantize_tokens_1 takes 4 arguments, but received 2',
    )
    expect(() => stream.launch(kernel, shape, [x, x, width, x], 'mixed up')).toThrow(
      'mixed up: argument 2 of kernel quantize_tokens_1 has 8 bytes, but received 4',
    )
    expect(driver.get('launches')).toBe(0)
    x.dispose()
  })

  it.each([
    { grid: [0, 1, 1], block: [1, 1, 1] },
    { grid: [1, 1, 1], block: [-1, 1, 1] },
    { grid: [1.5, 1, 1], block: [1, 1, 1] },
    { grid: [2 ** 31, 1, 1], block: [1, 1, 1] },
  ] as const)('refuses the shape %j', (shape) => {
    expect(() => stream.launch(device.kernel('quantize_tokens_1'), shape, [], 'x')).toThrow(/expected/)
  })

  it('reports what the driver refuses, with op, kernel and shape', () => {
    driver.fail('cuLaunchKernelEx', 1)
    const [x, out, scale] = [1024, 512, 8].map((bytes) => stream.allocate(bytes, 'x')) as [
      CudaBuffer,
      CudaBuffer,
      CudaBuffer,
    ]
    expect(() => quantizeTokens(device, stream, { x, rows: 2, columns: 256, out, scale })).toThrow(
      'quantizeFp8 of x [2, 256]: kernel quantize_tokens_1, grid 2 × 1 × 1, block 32 × 1 × 1, clusters of 1, 0 bytes ' +
        'shared: cuLaunchKernelEx failed with CUDA_ERROR_INVALID_VALUE (1): the fake driver was told so',
    )
    driver.fail('', 0)
    quantizeTokens(device, stream, { x, rows: 2, columns: 256, out, scale, dependent: true })
    expect(lastLaunch()).toMatchObject({ grid: [2, 1, 1], block: [32, 1, 1], dependent: 1 })
    for (const buffer of [x, out, scale]) buffer.dispose()
  })

  it('walks through many rows with as many blocks as fit the GPU', () => {
    driver.setParameters([8, 8, 4, 8, 8, 4, 4])
    const [rows, columns] = [5000, 4096]
    const op = { rows, columns, eps: 1e-5 }
    const [x, out, weight, scale] = [rows * columns * 2, rows * columns, columns * 2, rows * 4].map((bytes) =>
      stream.allocate(bytes, 'x'),
    ) as [CudaBuffer, CudaBuffer, CudaBuffer, CudaBuffer]
    rmsNormQuantize(device, stream, { ...op, x, out, weight, scale })
    expect(lastLaunch()).toMatchObject({ grid: [4 * 132, 1, 1], block: [256, 1, 1] })
    rmsNormQuantize(device, stream, { ...op, rows: 100, x, out, weight, scale })
    expect(lastLaunch()).toMatchObject({ grid: [100, 1, 1], block: [256, 1, 1] })
    for (const buffer of [x, out, weight, scale]) buffer.dispose()
  })

  it('refuses buffers that are too small, and does nothing for no rows', () => {
    const small = stream.allocate(100, 'small')
    const op = { x: small, out: small, scale: small, weight: small, eps: 1e-5, columns: 8 }
    expect(() => rmsNormQuantize(device, stream, { ...op, rows: 7 })).toThrow(
      'rmsNormQuantize of x [7, 8]: expected x of at least 112 bytes but received 100',
    )
    expect(() => quantizeTokens(device, stream, { ...op, columns: 104, rows: 1 })).toThrow(/expected x of at least 208/)
    expect(() => rmsNormQuantize(device, stream, { ...op, columns: 16392, rows: 1 })).toThrow(/at most 16384/)
    rmsNormQuantize(device, stream, { ...op, rows: 0 })
    quantizeTokens(device, stream, { ...op, rows: 0 })
    expect(driver.get('launches')).toBe(0)
    small.dispose()
  })
})
