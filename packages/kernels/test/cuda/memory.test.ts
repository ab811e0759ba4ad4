import fc from 'fast-check'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { CudaDevice } from '../../src/cuda/device.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { describeFake, fakeFactory } from './support.js'

const MiB = 2 ** 20
const memoryOfFake = 64 * MiB

describeFake('device memory', () => {
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream

  beforeEach(() => {
    driver = fakeFactory().make({ memory: memoryOfFake })
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
  })

  afterEach(() => {
    driver.fail('', 0)
    driver.set('holdEvents', 0)
    stream.dispose()
    device.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  it('is counted: in use, cached, at most, in blocks', () => {
    const a = stream.allocate(3 * MiB, 'a')
    const b = stream.allocate(100, 'b')
    expect(device.memory()).toMatchObject({ allocated: 4 * MiB + 512, reserved: 4 * MiB + 512, blocks: 2 })
    a.dispose()
    b.dispose()
    expect(device.memory()).toEqual({
      allocated: 0,
      reserved: 4 * MiB + 512,
      peakAllocated: 4 * MiB + 512,
      peakReserved: 4 * MiB + 512,
      blocks: 0,
      allocations: 2,
      driverAllocations: 2,
      retries: 0,
    })
    expect(device.trim()).toBe(4 * MiB + 512)
    expect(device.memory().reserved).toBe(0)
    expect(driver.get('allocatedBytes')).toBe(0)
  })

  it('is given again to the stream that freed it, at once, even while work runs', () => {
    driver.set('holdEvents', 1)
    for (let i = 0; i < 10; i++) stream.allocate(5 * MiB, 'x').dispose()
    expect(device.memory()).toMatchObject({ allocations: 10, driverAllocations: 1 })
  })

  it('serves a smaller need if little is wasted', () => {
    stream.allocate(20 * MiB, 'large').dispose()
    const close = stream.allocate(18 * MiB, 'an eighth less')
    expect(device.memory().driverAllocations).toBe(1)
    close.dispose()
    const small = stream.allocate(10 * MiB, 'half')
    expect(device.memory().driverAllocations).toBe(2)
    small.dispose()
  })

  it('goes to another stream only when the closed one has done its work', () => {
    driver.set('holdEvents', 1)
    const other = device.createStream()
    other.allocate(4 * MiB, 'x').dispose()
    stream.allocate(4 * MiB, 'y').dispose()
    expect(device.memory().driverAllocations).toBe(2)
    other.dispose()
    const y = stream.allocate(4 * MiB, 'y')
    const z = stream.allocate(4 * MiB, "z: the closed stream's work isn't done")
    expect(device.memory().driverAllocations).toBe(3)
    driver.set('holdEvents', 0)
    const w = stream.allocate(4 * MiB, 'w: now it is')
    expect(device.memory().driverAllocations).toBe(3)
    for (const buffer of [y, z, w]) buffer.dispose()
  })

  it('that several streams used waits for all of them', () => {
    const other = device.createStream()
    const shared = stream.allocate(4 * MiB, 'shared')
    other.fill(shared, 1, 'shared')
    driver.set('holdEvents', 1)
    shared.dispose()
    const again = stream.allocate(4 * MiB, 'again')
    expect(device.memory().driverAllocations).toBe(2)
    again.dispose()
    driver.set('holdEvents', 0)
    const [first, second] = [stream.allocate(4 * MiB, 'first'), stream.allocate(4 * MiB, 'second')]
    expect(device.memory().driverAllocations).toBe(2)
    for (const buffer of [first, second]) buffer.dispose()
    other.dispose()
  })

  it('that runs out takes the cache back and tries again', () => {
    stream.allocate(40 * MiB, 'a').dispose()
    const b = stream.allocate(60 * MiB, 'b')
    expect(device.memory()).toMatchObject({ retries: 1, reserved: 60 * MiB, allocated: 60 * MiB })
    b.dispose()
  })

  it('that runs out for good is an error with op, shape and numbers, and the device remains usable', () => {
    const held = stream.allocate(30 * MiB, 'held')
    expect(() => stream.allocate(50 * MiB + 1, 'linear layers.0.qkv [4096, 6144]')).toThrow(
      'linear layers.0.qkv [4096, 6144]: out of GPU memory: 50.00 MiB wanted, but 34.00 MiB of 64.00 MiB are free; ' +
        '30.00 MiB are in use here, in 1 blocks',
    )
    expect(() => stream.allocate(2 ** 52, 'absurd')).toThrow(/^absurd: out of GPU memory: 4194304\.00 GiB wanted/)
    const after = stream.allocate(30 * MiB, 'after')
    stream.fill(after, 7, 'after')
    held.dispose()
    after.dispose()
  })

  it('that fails for another reason says so', () => {
    driver.fail('cuMemAlloc_v2', 700)
    expect(() => stream.allocate(1, 'x [1]')).toThrow(
      'x [1]: cuMemAlloc_v2 failed with CUDA_ERROR_ILLEGAL_ADDRESS (700): an illegal memory access was encountered; ' +
        "this process can't use the device any more",
    )
  })

  it('is freed once, however often it is disposed, and not used afterwards', () => {
    const buffer = stream.allocate(1000, 'x')
    buffer.dispose()
    buffer.dispose()
    buffer[Symbol.dispose]()
    expect(device.memory()).toMatchObject({ blocks: 0, allocated: 0 })
    expect(() => stream.fill(buffer, 0, 'x')).toThrow('The CUDA buffer was disposed')
  })

  it('may be allocated with no bytes at all', async () => {
    const buffer = stream.allocate(0, 'no rows')
    stream.fill(buffer, 1, 'no rows')
    await stream.upload(buffer, new Uint8Array(0), 'no rows')
    expect(await stream.download(buffer, new Uint8Array(0), 'no rows')).toEqual(new Uint8Array(0))
    buffer.dispose()
  })

  it('outlives the device that was disposed before it', () => {
    const own = fakeFactory().make()
    const short = CudaDevice.open({ library: own.library })
    const itsStream = short.createStream()
    const buffer = itsStream.allocate(100, 'x')
    short.dispose()
    short.dispose()
    itsStream.dispose()
    expect(own.get('contexts')).toBe(1)
    buffer.dispose()
    expect(own.alive()).toEqual(nothing)
  })

  it('balances whatever is allocated and freed in whatever order', () => {
    const step = fc.record({ bytes: fc.integer({ min: 0, max: 3 * MiB }), keep: fc.boolean(), other: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const second = device.createStream()
        const live: CudaBuffer[] = []
        for (const { bytes, keep, other } of steps) {
          if (live.length > 12) live.shift()!.dispose()
          const buffer = (other ? second : stream).allocate(bytes, `step of ${bytes}`)
          if (bytes % 2 === 0) stream.fill(buffer, 0, 'used on both')
          if (keep) live.push(buffer)
          else buffer.dispose()
          const { allocated, reserved, blocks } = device.memory()
          expect(blocks).toBe(live.length)
          expect(allocated).toBeLessThanOrEqual(reserved)
          expect(reserved).toBe(driver.get('allocatedBytes'))
        }
        for (const buffer of live) buffer.dispose()
        second.dispose()
        expect(device.memory()).toMatchObject({ allocated: 0, blocks: 0 })
        expect(driver.get('faults')).toBe(0)
      }),
      { numRuns: 50 },
    )
    device.trim()
    expect(driver.alive()).toMatchObject({ allocations: 0, allocatedBytes: 0 })
  })
})
