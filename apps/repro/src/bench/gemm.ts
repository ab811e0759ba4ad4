import { type CudaDevice, type CudaStream, chooseGemm, type GemmChoice } from '@fireq/kernels'
import type { Progress } from '../terminal/progress.js'
import { BASELINES, type Baseline, type Baselines } from './baselines.js'
import { readClocks } from './gpu.js'
import { randomWeight } from './linear-problem.js'
import { LinearGraph, RotatedWeight } from './ours.js'
import type { GemmShape } from './shapes.js'
import { type Contestant, takeTurns } from './turns.js'

export interface GemmSettings {
  readonly shapes: readonly GemmShape[]
  readonly tokens: readonly number[]
  /** Turns that every contestant has; the median counts. */
  readonly rounds: number
  readonly codes: 'sym' | 'full'
}

/** Times of one shape and number of tokens, in µs. */
export interface GemmRow {
  readonly layers: readonly string[]
  readonly n: number
  readonly k: number
  readonly m: number
  readonly kernel: string
  readonly microseconds: { readonly ours: number } & { readonly [name in Baseline]?: number }
  readonly teraflops: number
  /** Weights, activations and results, once each, per second. */
  readonly gigabytesPerSecond: number
  /** The better FP8 time over ours; absent without baselines. */
  readonly ratio?: number
  /** ‖out − exact‖ / ‖exact‖ on a sample, the exact one in float64. */
  readonly error: number
  /** The same of cuBLASLt's FP8 with a scale a row, on its own operands. */
  readonly fp8Error?: number
  /** Of the SMs, while the largest number of tokens was timed. */
  readonly clocks?: string
}

/** A round through a weight's copies: several times the L2. */
const ROTATED_BYTES = 250e6
/** A graph lasts about this long. */
const GRAPH_SECONDS = 3e-3

/** Times our linear beside the baselines, in turns, so that all meet the same clocks. */
export async function benchGemm(
  device: CudaDevice,
  stream: CudaStream,
  baselines: Baselines | undefined,
  settings: GemmSettings,
  progress: Progress,
  signal: AbortSignal,
): Promise<GemmRow[]> {
  const rows: GemmRow[] = []
  progress.expect(settings.shapes.length * settings.tokens.length)
  for (const shape of settings.shapes) {
    const { n, k } = shape
    const tensor = randomWeight(n, k, settings.codes, n + k)
    using weight = await RotatedWeight.create(device, stream, tensor, ROTATED_BYTES)
    await baselines?.weight(n, k, ROTATED_BYTES)
    for (const m of settings.tokens) {
      signal.throwIfAborted()
      progress.begin(`${n} × ${k}, ${m} tokens`)
      const isLast = m === settings.tokens.at(-1)
      rows.push(await benchOne(device, stream, weight, baselines, shape, m, settings.rounds, isLast))
    }
    device.trim()
  }
  return rows
}

async function benchOne(
  device: CudaDevice,
  stream: CudaStream,
  weight: RotatedWeight,
  baselines: Baselines | undefined,
  { n, k, layers }: GemmShape,
  m: number,
  rounds: number,
  withClocks: boolean,
): Promise<GemmRow> {
  const operations = 2 * m * n * k
  const count = Math.round(Math.min(48, Math.max(2, GRAPH_SECONDS / (operations / 1.2e15 + 5e-6))))
  using graph = await LinearGraph.create(weight, stream, m, count)
  const fp8Error = await baselines?.tokens(m, count)
  const contestants: Contestant<keyof GemmRow['microseconds']>[] = [['ours', () => graph.time()]]
  if (baselines !== undefined) for (const name of BASELINES) contestants.push([name, () => baselines.time(name)])
  let clocks: Promise<string | undefined> | undefined
  const microseconds: GemmRow['microseconds'] = await takeTurns(contestants, rounds, () => {
    if (withClocks) clocks = readClocks()
  })
  const { ours, fp8Tensor, fp8Row } = microseconds
  const bytes = weight.copies[0]!.bytes + m * k + m * 4 + m * n * 2
  const clocksRead = await clocks
  return {
    layers,
    n,
    k,
    m,
    kernel: describeChoice(chooseGemm(m, n, k, device.info.multiprocessors)),
    microseconds,
    teraflops: operations / ours / 1e6,
    gigabytesPerSecond: bytes / ours / 1e3,
    ...(fp8Tensor !== undefined && fp8Row !== undefined && { ratio: Math.min(fp8Tensor, fp8Row) / ours }),
    error: await graph.error(),
    ...(fp8Error !== undefined && { fp8Error }),
    ...(clocksRead !== undefined && { clocks: clocksRead }),
  }
}

function describeChoice({ family, features, tokens, split, clusters, cut }: GemmChoice): string {
  const parts = split > 1 ? ` / ${split}` : cut > 0 ? ` shared by ${clusters}` : ''
  return `${family} ${features} × ${tokens}${parts}`
}
