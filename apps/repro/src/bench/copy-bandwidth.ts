import type { CudaStream } from '@fireq/kernels'
import { timeGraph } from './ours.js'
import { takeTurns } from './turns.js'

/** Many times the L2. */
const BYTES = 2 ** 29
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
