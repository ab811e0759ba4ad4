import { afterAll, describe } from 'vitest'
import { loadAddon } from '../../src/native/load.js'
import { FakeDriverFactory } from './fake-driver/fake-driver.js'

const { addon } = loadAddon()
let factory: FakeDriverFactory | undefined

const problem = addon === undefined ? 'the native addon is not loaded' : fakeFactory().problem
if (problem !== undefined) console.log(`skipped: the CUDA runtime on a pretended driver: ${problem}`)
/** The kernels in this build; without them, tests that load one are skipped and say so. */
export const hasKernels: boolean = addon !== undefined && addon.cudaKernels().length > 0
if (addon !== undefined && !hasKernels) console.log(`skipped: CUDA kernels: ${addon.cudaWhyNoKernels}`)

/** `describe` that is skipped where the fake driver can't be built or used. */
export const describeFake: typeof describe.skip = problem === undefined ? describe : describe.skip

/** Makes fake drivers; they are removed after the file's tests. */
export function fakeFactory(): FakeDriverFactory {
  factory ??= new FakeDriverFactory()
  return factory
}

afterAll(() => factory?.close())
