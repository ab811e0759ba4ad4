import type { CudaDevice } from './device.js'
import type { CudaStream } from './stream.js'

/** Many times the L2, a second's fraction to read. */
const BYTES = 2 ** 29
const READS = 8
const THREADS = 512
/** What a multiprocessor holds of them at once. */
const BLOCKS = 2

/** How fast a device's memory is read, in bytes a second: of several turns the best, for comparing kernels with. */
export async function readBandwidth(device: CudaDevice, stream: CudaStream): Promise<number> {
  const what = 'read bandwidth'
  using memory = stream.allocate(BYTES, what)
  using sink = stream.allocate(4, what)
  stream.fill(memory, 0, what)
  const kernel = device.kernel('read_memory')
  const shape = { grid: [device.info.multiprocessors * BLOCKS, 1, 1], block: [THREADS, 1, 1] } as const
  const u32 = (value: number) => ({ type: 'u32', value }) as const
  using graph = stream.capture(() => {
    for (let i = 0; i < READS; i++) stream.launch(kernel, shape, [memory, u32(BYTES / 16), u32(1), sink], what)
  })
  let best = 0
  for (let turn = 0; turn < 5; turn++) {
    using start = stream.record()
    stream.replay(graph, what)
    using end = stream.record()
    await stream.synchronize()
    best = Math.max(best, (BYTES * READS) / (end.since(start) / 1e3))
  }
  return best
}
