import { afterEach, beforeEach, expect, it } from 'vitest'
import { CudaDevice } from '../../src/cuda/device.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { Random } from '../conformance/random.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { transferCases } from './gpu/transfer-cases.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

describeFake('streams', () => {
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream

  beforeEach(() => {
    driver = fakeFactory().make()
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
  })

  afterEach(() => {
    driver.fail('', 0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  it.each(transferCases)('$name', async ({ run }) => run(device, new Random(1)))

  it('refuse bytes that are not in the buffer', async () => {
    const buffer = stream.allocate(100, 'x')
    await expect(stream.upload(buffer, new Uint8Array(50), 'x [50] at 51', 51)).rejects.toThrow(
      'x [50] at 51: expected bytes 51 to 101 to be inside the buffer of 100',
    )
    await expect(stream.download(buffer, new Uint8Array(101), 'x')).rejects.toThrow(/inside the buffer of 100/)
    buffer.dispose()
  })

  it("refuse a buffer of another device's", () => {
    const other = CudaDevice.open({ library: driver.library })
    const itsStream = other.createStream()
    const buffer = itsStream.allocate(100, 'x')
    expect(() => stream.fill(buffer, 0, 'x')).toThrow('x: the buffer is on another device than the stream')
    for (const resource of [buffer, itsStream, other]) resource.dispose()
  })

  it('report a failed copy and stay usable', async () => {
    const buffer = stream.allocate(100, 'x')
    driver.fail('cuMemcpyHtoDAsync_v2', 1)
    await expect(stream.upload(buffer, new Uint8Array(100), 'token ids [25]')).rejects.toThrow(
      'token ids [25]: cuMemcpyHtoDAsync_v2 failed with CUDA_ERROR_INVALID_VALUE (1): the fake driver was told so',
    )
    driver.fail('', 0)
    await stream.upload(buffer, new Uint8Array(100), 'token ids [25]')
    buffer.dispose()
  })

  it('reject a wait that fails, with the latest launches', async () => {
    driver.setParameters([])
    if (hasKernels) {
      const kernel = device.kernel('quantize_tokens_1')
      for (let i = 0; i < 6; i++) stream.launch(kernel, { grid: [1, 1, 1], block: [32, 1, 1] }, [], `op ${i} [7, 64]`)
    }
    driver.fail('cuEventSynchronize', 700)
    const launches = hasKernels ? ' (its latest launches: op 2 [7, 64]; op 3 [7, 64]; op 4 [7, 64]; op 5 [7, 64])' : ''
    await expect(stream.synchronize()).rejects.toThrow(
      `waiting for the GPU${launches}: cuEventSynchronize failed with CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal ` +
        "memory access was encountered; this process can't use the device any more",
    )
  })

  it('do not write into an array that was detached while a download was under way', async () => {
    const buffer = stream.allocate(16, 'x')
    const into = new Uint8Array(16)
    const done = stream.download(buffer, into, 'x')
    structuredClone(into.buffer, { transfer: [into.buffer] })
    await expect(done).rejects.toThrow(/detached/)
    buffer.dispose()
  })

  it('refuse what a graph can not hold, and leave the capture clean', async () => {
    const buffer = stream.allocate(8, 'x')
    expect(() => stream.capture(() => stream.allocate(8, 'y [8]'))).toThrow(
      "y [8]: memory can't be allocated while a graph is captured",
    )
    expect(() => stream.capture(() => stream.record())).toThrow('recording an event: not while a graph is captured')
    expect(() => stream.capture(() => stream.capture(() => undefined))).toThrow(/not while a graph is captured/)
    let upload: Promise<void> | undefined
    const graph = stream.capture(() => {
      upload = stream.upload(buffer, new Uint8Array(8), 'x')
    })
    await expect(upload).rejects.toThrow('x: not while a graph is captured')
    const other = device.createStream()
    expect(() => other.replay(graph, 'step')).toThrow('step: the graph was captured on another stream')
    for (const resource of [graph, buffer, other]) resource.dispose()
  })

  it('free what was disposed during a capture once it ends', () => {
    stream.keptSums()
    const { blocks } = device.memory()
    const other = device.createStream()
    const shared = stream.allocate(8, 'shared')
    other.fill(shared, 1, 'shared')
    const graph = stream.capture(() => {
      stream.fill(shared, 2, 'shared')
      shared.dispose()
    })
    expect(device.memory().blocks).toBe(blocks + 1)
    graph.dispose()
    expect(device.memory().blocks).toBe(blocks)
    const before = stream.allocate(8, 'before')
    other.fill(before, 1, 'before')
    stream.capture(() => before.dispose()).dispose()
    expect(device.memory().blocks).toBe(blocks)
    other.dispose()
  })

  it('say that a handle was disposed, and what kind it was', () => {
    const other = device.createStream()
    other.dispose()
    other.dispose()
    expect(() => other.record()).toThrow('The CUDA stream was disposed')
    const event = stream.record()
    event.dispose()
    expect(() => stream.waitFor(event)).toThrow('The CUDA event was disposed')
  })

  it('leave nothing behind when made and disposed 100 times', async () => {
    for (let i = 0; i < 100; i++) {
      const again = device.createStream()
      const buffer = again.allocate(1000, 'x')
      const graph = again.capture(() => again.fill(buffer, i, 'x'))
      const event = again.record()
      again.replay(graph, 'x')
      await again.synchronize()
      for (const resource of [event, graph, buffer, again]) resource.dispose()
    }
    expect(driver.alive()).toMatchObject({ streams: 1, graphs: 0, faults: 0 })
    expect(driver.get('driverAllocations')).toBe(3) // the buffer, and what a capture needs for its stream
  })
})

describeFake('opening a device', () => {
  it('that is not there', () => {
    const driver = fakeFactory().make({ devices: 2 })
    expect(() => CudaDevice.open({ library: driver.library, ordinal: 2 })).toThrow(
      'there is no GPU 2: the driver shows 2',
    )
    expect(() => CudaDevice.open({ library: driver.library, ordinal: -1 })).toThrow(/expected a whole number/)
    const second = CudaDevice.open({ library: driver.library, ordinal: 1 })
    expect(second.info.ordinal).toBe(1)
    second.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  it('that the kernels do not run on', () => {
    const driver = fakeFactory().make({ major: 8, minor: 9 })
    expect(() => CudaDevice.open({ library: driver.library })).toThrow(/compute capability 8\.9, but .* 9\.0/)
    expect(driver.alive()).toEqual(nothing)
  })

  it('without a driver', () => {
    expect(() => CudaDevice.open({ library: '/nowhere/libcuda.so.1' })).toThrow(/no NVIDIA driver/)
  })

  it('whose context can not be had leaves nothing behind', () => {
    const driver = fakeFactory().make()
    driver.fail('cuDevicePrimaryCtxRetain', 2)
    expect(() => CudaDevice.open({ library: driver.library })).toThrow(
      'opening GPU 0: cuDevicePrimaryCtxRetain failed with CUDA_ERROR_OUT_OF_MEMORY (2): the fake driver was told so',
    )
    expect(driver.alive()).toEqual(nothing)
  })
})
