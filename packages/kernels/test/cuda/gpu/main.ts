import { after, test } from 'node:test'
import { CudaDevice } from '../../../src/cuda/device.js'
import { cudaStatus, describeStatus } from '../../../src/cuda/status.js'
import { Random } from '../../conformance/random.js'
import { gpuCases } from './cases.js'

// The GPU tests under node's own runner, for a machine that has no vitest (see scripts/gpu-bundle.mjs). On one with
// several GPUs they run on each.

const status = cudaStatus()
console.log(status.usable ? describeStatus(status) : `skipped: no GPU: ${status.problem}`)

for (const { ordinal, problem } of status.usable ? status.devices : []) {
  if (problem !== undefined) {
    console.log(`skipped: ${problem}`)
    continue
  }
  const device = CudaDevice.open({ ordinal })
  after(() => device.dispose())
  for (const { name, run } of gpuCases) {
    const seed = Date.now() % 2 ** 32
    test(`GPU ${ordinal}: ${name} (seed ${seed})`, () => run(device, new Random(seed)))
  }
  test(`GPU ${ordinal}: nothing is left allocated`, () => {
    const { blocks, allocated } = device.memory()
    if (blocks !== 0 || allocated !== 0) throw new Error(`${blocks} blocks of ${allocated} bytes are still in use`)
  })
}
