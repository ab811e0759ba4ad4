import assert from 'node:assert/strict'
import { f32ToE4m3Bits } from '@fireq/formats'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { CudaKvCache } from '../../../src/cuda/kv-cache.js'
import type { CudaBuffer } from '../../../src/cuda/resources.js'
import type { CudaStream } from '../../../src/cuda/stream.js'
import type { AttentionProblem } from './attention-problem.js'

const GUARD_ROWS = 8
const POISON = 0xffff

/** A problem's cache and queries on a device, with room behind the output that must stay as it is. */
export class OnDevice implements Disposable {
  readonly cache: CudaKvCache
  readonly q: CudaBuffer
  readonly qScale: CudaBuffer
  readonly out: CudaBuffer

  private constructor(
    device: CudaDevice,
    readonly stream: CudaStream,
    readonly problem: AttentionProblem,
  ) {
    const { rows, heads, headDim = 128, pages, cacheSpec } = problem
    this.cache = CudaKvCache.create(device, stream, cacheSpec, { pages })
    this.q = stream.allocate(rows * heads * headDim, 'q')
    this.qScale = stream.allocate(rows * heads * 4, 'qScale')
    this.out = stream.allocate((rows + GUARD_ROWS) * heads * headDim * 2, 'out')
  }

  static async create(device: CudaDevice, stream: CudaStream, problem: AttentionProblem): Promise<OnDevice> {
    const made = new OnDevice(device, stream, problem)
    await stream.upload(made.cache.layer(0, 'test'), problem.cache, 'cache')
    await stream.upload(made.q, Uint8Array.from(problem.q, f32ToE4m3Bits), 'q')
    await stream.upload(made.qScale, problem.qScale, 'qScale')
    return made
  }

  /** The sequences, for a batch. */
  get sequences() {
    const { sequences, pagesOf } = this.problem
    return sequences.map((sequence, s) => ({ ...sequence, pages: pagesOf[s]! }))
  }

  /** What `attend` leaves of poisoned output; it must leave what is behind. */
  async run(attend: () => void): Promise<Uint16Array> {
    this.stream.fill(this.out, 0xff, 'poison')
    attend()
    const all = await this.stream.download(this.out, new Uint16Array(this.out.bytes / 2), 'out')
    const { rows, heads, headDim = 128 } = this.problem
    const written = rows * heads * headDim
    assert.ok(
      all.subarray(written).every((bits) => bits === POISON),
      'wrote behind the end',
    )
    return all.subarray(0, written)
  }

  [Symbol.dispose](): void {
    for (const resource of [this.cache, this.q, this.qScale, this.out]) resource.dispose()
  }
}
