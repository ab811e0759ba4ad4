import { type CudaBuffer, type CudaDevice, type CudaStream, quantizeTokens, rmsNormQuantize } from '@fireq/kernels'
import type { Progress } from '../terminal/progress.js'
import type { GemmSettings } from './gemm.js'
import { activationPattern, bf16Pattern, randomWeight, tokenScales } from './linear-problem.js'
import { RotatedWeight, timeGraph, uploadRepeated } from './ours.js'
import type { FeedForwardShape } from './shapes.js'
import { takeTurns } from './turns.js'

/** Times of one feed-forward network and number of tokens, in µs. */
export interface FeedForwardRow {
  readonly model: string
  readonly m: number
  readonly microseconds: {
    /** gate_up and down alone. */
    readonly gemms: number
    /** With SiLU(gate) · up, its rounding to FP8, and the residual added. */
    readonly block: number
    /** And with RMSNorm and rounding to FP8 before them. */
    readonly withNorm: number
  }
  /** Of the block over its GEMMs. */
  readonly ratio: number
}

/** A round through the weights' copies: several times the L2. */
const ROTATED_BYTES = 250e6
const GRAPH_SECONDS = 3e-3

/** What a feed-forward network costs beside its two GEMMs, in turns. */
export async function benchFeedForwards(
  device: CudaDevice,
  stream: CudaStream,
  shapes: readonly FeedForwardShape[],
  { tokens, rounds, codes }: Pick<GemmSettings, 'tokens' | 'rounds' | 'codes'>,
  progress: Progress,
  signal: AbortSignal,
): Promise<FeedForwardRow[]> {
  const rows: FeedForwardRow[] = []
  progress.expect(shapes.length * tokens.length)
  for (const { model, hidden, intermediate } of shapes) {
    const gateUp = randomWeight(2 * intermediate, hidden, codes, hidden)
    using plain = await RotatedWeight.create(device, stream, gateUp, ROTATED_BYTES)
    using fused = await RotatedWeight.create(device, stream, gateUp, ROTATED_BYTES, { siluMul: true })
    using down = await RotatedWeight.create(
      device,
      stream,
      randomWeight(hidden, intermediate, codes, intermediate),
      ROTATED_BYTES,
    )
    for (const m of tokens) {
      signal.throwIfAborted()
      progress.begin(`feed-forward of ${model}, ${m} tokens`)
      using network = await FeedForward.create(device, stream, { plain, fused, down }, hidden, intermediate, m)
      rows.push({ model, m, ...(await network.time(rounds)) })
    }
    device.trim()
  }
  return rows
}

interface Weights {
  readonly plain: RotatedWeight
  readonly fused: RotatedWeight
  readonly down: RotatedWeight
}

type Buffers = Record<'x' | 'norm' | 'x8' | 'xScale' | 'gateUp' | 'h' | 'h8' | 'hScale' | 'out', CudaBuffer>

class FeedForward implements Disposable {
  readonly #device: CudaDevice
  readonly #stream: CudaStream
  readonly #weights: Weights
  readonly #sizes: { readonly hidden: number; readonly intermediate: number; readonly m: number }
  readonly #buffers: Buffers

  private constructor(
    device: CudaDevice,
    stream: CudaStream,
    weights: Weights,
    sizes: { readonly hidden: number; readonly intermediate: number; readonly m: number },
    buffers: Buffers,
  ) {
    this.#device = device
    this.#stream = stream
    this.#weights = weights
    this.#sizes = sizes
    this.#buffers = buffers
  }

  static async create(
    device: CudaDevice,
    stream: CudaStream,
    weights: Weights,
    hidden: number,
    intermediate: number,
    m: number,
  ): Promise<FeedForward> {
    const sizes: Record<keyof Buffers, number> = {
      x: m * hidden * 2,
      norm: hidden * 2,
      x8: m * hidden,
      xScale: m * 4,
      gateUp: m * intermediate * 4,
      h: m * intermediate * 2,
      h8: m * intermediate,
      hScale: m * 4,
      out: m * hidden * 2,
    }
    const buffers = Object.fromEntries(
      Object.entries(sizes).map(([name, bytes]) => [name, stream.allocate(bytes, `bench of a feed-forward: ${name}`)]),
    ) as Buffers
    for (const fp8 of [buffers.x8, buffers.h8]) await uploadRepeated(stream, fp8, activationPattern())
    for (const bf16 of [buffers.x, buffers.norm]) await uploadRepeated(stream, bf16, bf16Pattern())
    for (const scale of [buffers.xScale, buffers.hScale]) await stream.upload(scale, tokenScales(m), 'bench: scales')
    return new FeedForward(device, stream, weights, { hidden, intermediate, m }, buffers)
  }

  async time(rounds: number): Promise<Pick<FeedForwardRow, 'microseconds' | 'ratio'>> {
    const { hidden, intermediate, m } = this.#sizes
    const count = Math.round(
      Math.min(32, Math.max(2, GRAPH_SECONDS / ((6 * m * hidden * intermediate) / 1.2e15 + 1e-5))),
    )
    const stream = this.#stream
    const capture = (enqueue: (i: number) => void) =>
      stream.capture(() => {
        for (let i = 0; i < count; i++) enqueue(i)
      })
    using gemms = capture((i) => this.#gemms(i))
    using block = capture((i) => this.#block(i))
    using withNorm = capture((i) => {
      this.#norm()
      this.#block(i)
    })
    const contestants = Object.entries({ gemms, block, withNorm }).map(
      ([name, graph]) => [name as keyof FeedForwardRow['microseconds'], () => timeGraph(stream, graph, count)] as const,
    )
    const microseconds = await takeTurns(contestants, rounds)
    return { microseconds, ratio: microseconds.block / microseconds.gemms }
  }

  #gemms(i: number): void {
    const { x8, xScale, gateUp, h8, hScale, out } = this.#buffers
    const common = { tokens: this.#sizes.m, dependent: true }
    this.#weights.plain.copy(i).run(this.#stream, { ...common, x: x8, xScale, out: gateUp })
    this.#weights.down.copy(i).run(this.#stream, { ...common, x: h8, xScale: hScale, out })
  }

  #norm(): void {
    const { x, norm, x8, xScale } = this.#buffers
    const { m, hidden } = this.#sizes
    const op = { x, weight: norm, eps: 1e-5, rows: m, columns: hidden, out: x8, scale: xScale, dependent: true }
    rmsNormQuantize(this.#device, this.#stream, op)
  }

  #block(i: number): void {
    const { x, x8, xScale, h, h8, hScale, out } = this.#buffers
    const { m, intermediate } = this.#sizes
    const stream = this.#stream
    const common = { tokens: m, dependent: true }
    this.#weights.fused.copy(i).run(stream, { ...common, x: x8, xScale, out: h })
    quantizeTokens(this.#device, stream, {
      x: h,
      rows: m,
      columns: intermediate,
      out: h8,
      scale: hScale,
      dependent: true,
    })
    this.#weights.down.copy(i).run(stream, { ...common, x: h8, xScale: hScale, out, residual: x })
  }

  [Symbol.dispose](): void {
    for (const buffer of Object.values(this.#buffers)) buffer.dispose()
  }
}
