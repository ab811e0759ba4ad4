import { expect, it } from 'vitest'
import { backendReport } from '../../src/create-backend.js'
import { cudaStatus, describeStatus } from '../../src/cuda/status.js'
import { loadAddon } from '../../src/native/load.js'
import { describeFake, fakeFactory, hasKernels } from './support.js'

const noDriver = '/nowhere/libcuda.so.1'

describeFake('whether CUDA can be used', () => {
  const problemOf = (settings: Record<string, number>): string | undefined =>
    cudaStatus(fakeFactory().make(settings).library).problem

  it('says that there is no driver, and where it looked', () => {
    const status = cudaStatus(noDriver)
    expect(status.usable).toBe(false)
    expect(status.problem).toMatch(/^no NVIDIA driver: \/nowhere\/libcuda\.so\.1: cannot open shared object file/)
    expect(status.driverVersion).toBeUndefined()
    expect(status.devices).toEqual([])
  })

  it('says that a library is no driver', () => {
    expect(cudaStatus('libm.so.6').problem).toBe('libm.so.6 has no cuDriverGetVersion')
  })

  it.runIf(hasKernels)('says that a driver is too old, with both versions', () => {
    const toolkit = cudaStatus(noDriver).toolkitVersion!
    const needed = `${Number.parseInt(toolkit, 10)}.0`
    expect(problemOf({ version: 11080 })).toMatch(
      new RegExp(
        `^the NVIDIA driver.* is too old: it supports CUDA 11\\.8, but the kernels, built with CUDA ${toolkit}, need a ` +
          `driver for CUDA ${needed} or later$`,
      ),
    )
    expect(problemOf({ version: Number.parseInt(toolkit, 10) * 1000 - 90 })).toMatch(/too old/)
    expect(problemOf({ version: Number.parseInt(toolkit, 10) * 1000 })).toBeUndefined()
  })

  it("says what the driver answered if it can't start", () => {
    expect(problemOf({ initResult: 100 })).toBe(
      'starting the NVIDIA driver: cuInit failed with CUDA_ERROR_NO_DEVICE (100): the fake driver was told so',
    )
    expect(problemOf({ initResult: 4321 })).toMatch(/cuInit failed with an unknown error \(4321\)/)
  })

  it('says that there is no GPU', () => {
    expect(problemOf({ devices: 0 })).toBe('no NVIDIA GPU is visible to the driver')
  })

  it('names a GPU of the wrong kind, and the kind that is needed', () => {
    expect(problemOf({ major: 8, minor: 0 })).toBe(
      'GPU 0 (Fake GPU) has compute capability 8.0, but the kernels need 9.0 (Hopper)',
    )
    // sm_90a code runs on 9.0 only.
    expect(problemOf({ major: 10, minor: 0, devices: 2 })).toMatch(/^GPU 0 .* 10\.0, .*; GPU 1 .* 10\.0, /)
  })

  it('describes what it found', () => {
    const status = cudaStatus(fakeFactory().make({ version: 13010, devices: 2 }).library)
    expect(status.driverVersion).toBe('13.1')
    expect(status.usable).toBe(hasKernels)
    expect(status.devices).toHaveLength(2)
    expect(status.devices[1]).toEqual({
      ordinal: 1,
      name: 'Fake GPU',
      computeCapability: '9.0',
      multiprocessors: 132,
      totalBytes: 2 ** 30,
      problem: undefined,
    })
    const line = describeStatus(status)
    if (hasKernels) expect(line).toMatch(/^GPU 0: Fake GPU, 1 GiB; GPU 1: Fake GPU, 1 GiB; driver.* for CUDA 13\.1, /)
    else expect(line).toMatch(/^this build has no CUDA kernels: /)
  })

  it('reports a failure while looking around', () => {
    const driver = fakeFactory().make()
    driver.fail('cuDeviceGetCount', 999)
    expect(cudaStatus(driver.library).problem).toMatch(/^counting GPUs: cuDeviceGetCount failed with .* \(999\)/)
  })

  it('opens no context', () => {
    const driver = fakeFactory().make()
    cudaStatus(driver.library)
    expect(driver.alive()).toMatchObject({ contexts: 0, faults: 0 })
  })
})

it('is in the report on backends, usable or not', () => {
  const cuda = backendReport().find(({ name }) => name === 'cuda')!
  const status = cudaStatus()
  expect(cuda.detail).toContain(describeStatus(status))
  if (loadAddon().addon === undefined) expect(cuda.detail).toBe('the native addon is not loaded')
})
