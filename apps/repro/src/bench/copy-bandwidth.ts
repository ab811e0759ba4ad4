import type { CudaStream } from '@fireq/kernels'
import { timeGraph } from './ours.js'
import { takeTurns } from './turns.js'

/** Many times the L2, and no power of two: of 512 MiB an H200 copied 2.76 TB/s, of 448 MiB 4.27. */
const BYTES = 7 * 2 ** 26
const COPIES = 2

/** How fast a device copies its own memory, in bytes read and written a second: the median of `rounds`. */
export async function copyBandwidth(stream: CudaStream, rounds: number): Promise<number> {
  using from = stream.allocate(BYTES, 'copy bandwidth')
  using to = stream.allocate(BYTES, 'copy bandwidth')
  stream.fill(from, 0x5a, 'copy bandwidth')
  using graph = stream.capture(() => {
    for (let i = 0; i < COPIES; i++) stream.copy(from, to, 'copy bandwidth')
  })
  const { copy } = await takeTurns([['copy', () => timeGraph(stream, graph, COPIES)]], rounds)
  return (2 * BYTES) / (copy * 1e-6)
}
