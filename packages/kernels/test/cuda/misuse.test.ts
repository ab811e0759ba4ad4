import { afterAll, beforeAll, expect, it } from 'vitest'

import { CudaDevice } from '../../src/cuda/device.js'
import type { CudaBuffer } from '../../src/cuda/resources.js'
import type { CudaStream } from '../../src/cuda/stream.js'
import { loadAddon } from '../../src/native/load.js'
import { type FakeDriver, nothing } from './fake-driver/fake-driver.js'
import { describeFake, fakeFactory } from './support.js'

describeFake('the native functions, called wrongly', () => {
  const { addon } = loadAddon()
  let driver: FakeDriver
  let device: CudaDevice
  let stream: CudaStream
  let buffer: CudaBuffer
  beforeAll(() => {
    driver = fakeFactory().make()
    device = CudaDevice.open({ library: driver.library })
    stream = device.createStream()
    buffer = stream.allocate(100, 'x')
  })
  afterAll(() => {
    for (const resource of [buffer, stream, device]) resource.dispose()
    expect(driver.alive()).toEqual(nothing)
  })

  const functions = Object.entries(addon ?? {}).filter(
    (entry): entry is [string, (...args: unknown[]) => unknown] =>
      entry[0].startsWith('cuda') && typeof entry[1] === 'function' && entry[0] !== 'cudaKernels',
  )
  const detached = new Uint8Array(8)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  const shared = new Uint8Array(new SharedArrayBuffer(8))
  const junk: readonly unknown[] = [
    undefined,
    null,
    -1,
    1.5,
    Number.NaN,
    2 ** 60,
    'x',
    {},
    [],
    () => 0,
    new Uint8Array(8),
    new Float32Array(8),
    detached,
    shared,
    10n,
    Symbol('x'),
  ]

  it.each(functions)('%s throws an Error', async (name, call) => {
    expect(functions.length).toBeGreaterThan(18)
    await expect(async () => call()).rejects.toThrow(Error)
    for (const value of junk) {
      if (name === 'cudaStatus' && value === 'x') continue
      await expect(async () => call(...Array(8).fill(value)), String(typeof value)).rejects.toThrow(Error)
    }
    if (name === 'cudaRelease') return
    // No other function takes a buffer first.
    for (const value of junk) {
      await expect(async () => call(buffer.native, ...Array(7).fill(value))).rejects.toThrow(Error)
    }
  })

  it('transfers refuse memory that is not theirs to keep', async () => {
    await expect(stream.upload(buffer, detached, 'x [8]')).rejects.toThrow("x [8]: the array's memory is detached")
    await expect(stream.download(buffer, detached, 'x [8]')).rejects.toThrow("x [8]: the array's memory is detached")
    await expect(stream.upload(buffer, shared, 'x')).rejects.toThrow(/SharedArrayBuffer/)
    await expect(stream.download(buffer, shared, 'x')).rejects.toThrow(/SharedArrayBuffer/)
  })

  it('released handles say so', () => {
    const own = device.createStream()
    const handle = own.native
    own.dispose()
    addon!.cudaRelease(handle)
    expect(() => addon!.cudaRecord(handle)).toThrow('the CUDA stream was disposed')
  })
})
