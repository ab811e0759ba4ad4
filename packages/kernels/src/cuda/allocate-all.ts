import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

/** Buffers of these sizes, all or none. */
export function allocateAll<Name extends string>(
  stream: CudaStream,
  sizes: Readonly<Record<Name, number>>,
  what: string,
): Record<Name, CudaBuffer> {
  const made: [string, CudaBuffer][] = []
  try {
    for (const [name, bytes] of Object.entries<number>(sizes)) {
      made.push([name, stream.allocate(bytes, `${what}: ${name}`)])
    }
  } catch (error) {
    for (const [, buffer] of made) buffer.dispose()
    throw error
  }
  return Object.fromEntries(made) as Record<Name, CudaBuffer>
}
