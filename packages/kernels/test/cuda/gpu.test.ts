import { afterAll, beforeAll, describe, it } from 'vitest'
import { CudaDevice } from '../../src/cuda/device.js'
import { cudaStatus } from '../../src/cuda/status.js'
import { Random } from '../conformance/random.js'
import { gpuCases } from './gpu/cases.js'

const { usable, problem } = cudaStatus()
if (!usable) console.log(`skipped: no GPU: ${problem}`)

describe.skipIf(!usable)('on a GPU', () => {
  let device: CudaDevice
  beforeAll(() => {
    device = CudaDevice.open()
  })
  afterAll(() => device.dispose())

  it.each(gpuCases)('$name', ({ run }) => run(device, new Random(Date.now() % 2 ** 32)))
})
