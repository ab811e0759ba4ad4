import type { Int4Tensor } from '@fireq/formats'
import {
  type CudaBuffer,
  type CudaDevice,
  type CudaGraph,
  CudaLinear,
  type CudaStream,
  type PackOptions,
} from '@fireq/kernels'
import { activationPattern, sampledError, spread, tokenScales } from './linear-problem.js'

/** One weight on the device in enough copies that a round through them doesn't fit the L2. */
export class RotatedWeight implements Disposable {
  readonly copies: readonly CudaLinear[]

  private constructor(
    readonly device: CudaDevice,
    readonly tensor: Int4Tensor,
    copies: readonly CudaLinear[],
  ) {
    this.copies = copies
  }

  static async create(
    device: CudaDevice,
    stream: CudaStream,
    tensor: Int4Tensor,
    bytes: number,
    options: PackOptions = {},
  ): Promise<RotatedWeight> {
    const count = Math.min(24, Math.max(2, Math.ceil(bytes / tensor.codes.length)))
    const copies: CudaLinear[] = []
    for (let i = 0; i < count; i++) copies.push(await CudaLinear.pack(device, stream, tensor, options))
    return new RotatedWeight(device, tensor, copies)
  }

  /** The copy of the i-th turn. */
  copy(i: number): CudaLinear {
    return this.copies[i % this.copies.length]!
  }

  [Symbol.dispose](): void {
    for (const copy of this.copies) copy.dispose()
  }
}

/** µs of one of `count` parts of a graph: of two replays, one behind the other, the second. */
export async function timeGraph(stream: CudaStream, graph: CudaGraph, count: number): Promise<number> {
  stream.replay(graph, 'bench')
  using start = stream.record()
  stream.replay(graph, 'bench')
  using end = stream.record()
  await stream.synchronize()
  return (end.since(start) * 1e3) / count
}

/** Fills a buffer with a pattern, over and over. */
export async function uploadRepeated(
  stream: CudaStream,
  buffer: CudaBuffer,
  pattern: Uint8Array | Uint16Array,
): Promise<void> {
  const bytes = new Uint8Array(pattern.buffer, pattern.byteOffset, pattern.byteLength)
  for (let at = 0; at < buffer.bytes; at += bytes.length) {
    await stream.upload(buffer, bytes.subarray(0, buffer.bytes - at), 'bench: activations', at)
  }
}

/** A graph of many linears of m tokens, one behind the other, on the weight's copies in turn. */
export class LinearGraph implements Disposable {
  readonly #weight: RotatedWeight
  readonly #stream: CudaStream
  readonly #m: number
  readonly #count: number
  readonly #xScale: Float32Array
  readonly #buffers: CudaBuffer[]
  readonly #out: CudaBuffer
  readonly #graph: CudaGraph

  private constructor(weight: RotatedWeight, stream: CudaStream, m: number, count: number, buffers: CudaBuffer[]) {
    this.#weight = weight
    this.#stream = stream
    this.#m = m
    this.#count = count
    this.#xScale = tokenScales(m)
    this.#buffers = buffers
    const [x, xScale, out] = buffers as [CudaBuffer, CudaBuffer, CudaBuffer]
    this.#out = out
    this.#graph = stream.capture(() => {
      for (let i = 0; i < count; i++) {
        weight.copy(i).run(stream, { x, xScale, tokens: m, out, dependent: true })
      }
    })
  }

  static async create(weight: RotatedWeight, stream: CudaStream, m: number, count: number): Promise<LinearGraph> {
    const [n, k] = weight.tensor.shape
    const buffers = [m * k, m * 4, m * n * 2].map((bytes) => stream.allocate(bytes, `bench of M=${m} N=${n} K=${k}`))
    const [x, xScale, out] = buffers as [CudaBuffer, CudaBuffer, CudaBuffer]
    await uploadRepeated(stream, x, activationPattern())
    await stream.upload(xScale, tokenScales(m), 'bench: xScale')
    stream.fill(out, 0xff, 'bench: poison')
    return new LinearGraph(weight, stream, m, count, buffers)
  }

  /** µs a linear. */
  time(): Promise<number> {
    return timeGraph(this.#stream, this.#graph, this.#count)
  }

  /** Relative error against float64, on a sample of what the replays left. */
  async error(): Promise<number> {
    const n = this.#weight.tensor.shape[0]
    const rows = spread(this.#m, 8)
    const out = new Map<number, Uint16Array>()
    for (const row of rows) {
      out.set(row, await this.#stream.download(this.#out, new Uint16Array(n), 'bench: out', row * n * 2))
    }
    return sampledError(this.#weight.tensor, this.#m, this.#xScale, rows, (row, feature) => out.get(row)![feature]!)
  }

  [Symbol.dispose](): void {
    this.#graph.dispose()
    for (const buffer of this.#buffers) buffer.dispose()
  }
}
