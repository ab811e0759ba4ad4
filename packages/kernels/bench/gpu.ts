import { writeFileSync } from 'node:fs'
import { CudaDevice } from '../src/cuda/device.js'
import { CudaLinear } from '../src/cuda/linear.js'
import { quantizeTokens, rmsNormQuantize } from '../src/cuda/quantize.js'
import type { CudaBuffer } from '../src/cuda/resources.js'
import { cudaStatus, describeStatus } from '../src/cuda/status.js'
import type { CudaStream } from '../src/cuda/stream.js'

// How fast weights are packed, and times of the kernels that only move bytes, against a copy on the device: medians of graph replays, their inputs rotated
// past the L2 where there are enough of them. `--json FILE` writes them too.

const ROTATED_BYTES = 256 * 2 ** 20
const MOST_SETS = 64
const LAUNCHES = 64
const REPLAYS = 21

interface Timing {
  readonly kernel: string
  readonly rows: number
  readonly columns: number
  readonly microseconds: number
  /** Bytes read and written per second. */
  readonly bandwidth: number
}

async function main(): Promise<void> {
  const status = cudaStatus()
  console.log(status.usable ? describeStatus(status) : `skipped: no GPU: ${status.problem}`)
  if (!status.usable) return
  using device = CudaDevice.open()
  using stream = device.createStream()
  const packing = await timePacking(device, stream)
  const timings: Timing[] = []
  const report = (timing: Timing): void => {
    timings.push(timing)
    const { kernel, rows, columns, microseconds, bandwidth } = timing
    const [time, rate] = [microseconds.toFixed(2).padStart(9), (bandwidth / 1e9).toFixed(0).padStart(6)]
    console.log(
      `${kernel.padEnd(16)} [${String(rows).padStart(5)}, ${String(columns).padStart(5)}] ${time} µs ${rate} GB/s`,
    )
  }
  for (const columns of [4096, 8192, 14336, 28672]) {
    for (const rows of [1, 16, 128, 1024, 8192]) {
      report(await timeCopy(stream, rows, columns))
      report(await timeQuantize(device, stream, rows, columns, false))
      if (columns <= 8192) report(await timeQuantize(device, stream, rows, columns, true))
    }
    device.trim()
  }
  const file = process.argv[process.argv.indexOf('--json') + 1]
  if (process.argv.includes('--json') && file !== undefined) {
    const { driverVersion, driverRelease, toolkitVersion } = status
    const about = {
      date: new Date().toISOString(),
      gpu: device.info.name,
      driverVersion,
      driverRelease,
      toolkitVersion,
    }
    writeFileSync(file, `${JSON.stringify({ ...about, packing, timings }, undefined, 2)}\n`)
  }
}

/** INT4 bytes a second from a tensor in memory to packed blocks on the device, the best of some. */
async function timePacking(device: CudaDevice, stream: CudaStream): Promise<Record<string, number>> {
  const [n, k] = [28672, 4096]
  const results: Record<string, number> = {}
  for (const [name, least] of [
    ['-7…7', 1],
    ['-8…7', 0],
  ] as const) {
    const codes = new Uint8Array((n * k) / 2).map((_, i) => {
      const hash = Math.imul(i + 1, 0x9e3779b1) >>> 16
      return Math.max(least, hash & 15) | (Math.max(least, (hash >>> 4) & 15) << 4)
    })
    for (const [groupSize, siluMul] of [
      [128, false],
      [128, true],
      [32, false],
    ] as const) {
      const groupScale = { dtype: 'bf16', data: new Uint16Array((n * k) / groupSize).fill(0x3c00) } as const
      const tensor = { kind: 'int4', shape: [n, k], groupSize, codes, groupScale } as const
      const rates: number[] = []
      for (let i = 0; i < 5; i++) {
        const begin = performance.now()
        using linear = await CudaLinear.pack(device, stream, tensor, { siluMul })
        await stream.synchronize()
        if (linear.weight.kind !== 'int4' || linear.weight.codes !== name) throw new Error(`expected codes ${name}`)
        rates.push(codes.length / ((performance.now() - begin) * 1e-3))
      }
      const label = `${name}, groups of ${groupSize}${siluMul ? ', gate and up interleaved' : ''}`
      results[label] = Math.max(...rates)
      console.log(`packing INT4 [${n}, ${k}], ${label}: ${(results[label] / 1e9).toFixed(2)} GB/s of INT4`)
    }
  }
  return results
}

/** The ceiling: as many bytes read as written. */
async function timeCopy(stream: CudaStream, rows: number, columns: number): Promise<Timing> {
  const bytes = rows * columns * 2
  using sets = new BufferSets(stream, [bytes, bytes])
  const microseconds = await timeLaunches(stream, sets, ([from, to]) => stream.copy(from!, to!, 'copy'))
  return { kernel: 'copy', rows, columns, microseconds, bandwidth: (2 * bytes) / (microseconds * 1e-6) }
}

async function timeQuantize(
  device: CudaDevice,
  stream: CudaStream,
  rows: number,
  columns: number,
  norm: boolean,
): Promise<Timing> {
  const count = rows * columns
  using weight = stream.allocate(columns * 2, 'weight')
  stream.fill(weight, 0x3f, 'weight')
  using sets = new BufferSets(stream, [count * 2, count, rows * 4])
  await sets.randomize()
  const microseconds = await timeLaunches(stream, sets, ([x, out, scale]) => {
    const op = { x: x!, out: out!, scale: scale!, rows, columns }
    if (norm) rmsNormQuantize(device, stream, { ...op, weight, eps: 1e-5 })
    else quantizeTokens(device, stream, op)
  })
  const bytes = count * 3 + rows * 4 + (norm ? columns * 2 : 0)
  const kernel = norm ? 'rmsNormQuantize' : 'quantizeFp8'
  return { kernel, rows, columns, microseconds, bandwidth: bytes / (microseconds * 1e-6) }
}

/** Enough sets of buffers that a round through them doesn't fit the L2, up to a limit. */
class BufferSets implements Disposable {
  readonly sets: CudaBuffer[][]
  readonly #stream: CudaStream

  constructor(stream: CudaStream, sizes: readonly number[]) {
    const bytes = sizes.reduce((sum, size) => sum + size, 0)
    const count = Math.min(MOST_SETS, Math.max(2, Math.ceil(ROTATED_BYTES / bytes)))
    this.#stream = stream
    this.sets = Array.from({ length: count }, () => sizes.map((size) => stream.allocate(size, 'bench')))
  }

  /** Fills the first buffer of each set with BF16 numbers of about 1, in both signs. */
  async randomize(): Promise<void> {
    const first = this.sets[0]![0]!
    const pattern = new Uint16Array(2 ** 20).map((_, i) => {
      const hash = Math.imul(i + 1, 0x9e3779b1) >>> 16
      return ((hash & 1) << 15) | (0x3e00 + ((hash >>> 1) & 0x1ff))
    })
    const values = new Uint16Array(first.bytes / 2)
    for (let at = 0; at < values.length; at += pattern.length) {
      values.set(pattern.subarray(0, values.length - at), at)
    }
    await this.#stream.upload(first, values, 'bench')
    for (const [x] of this.sets.slice(1)) this.#stream.copy(first, x!, 'bench')
  }

  [Symbol.dispose](): void {
    for (const buffer of this.sets.flat()) buffer.dispose()
  }
}

/** Microseconds a launch, the median over replays of a graph of many. */
async function timeLaunches(
  stream: CudaStream,
  { sets }: BufferSets,
  launch: (set: readonly CudaBuffer[]) => void,
): Promise<number> {
  using graph = stream.capture(() => {
    for (let i = 0; i < LAUNCHES; i++) launch(sets[i % sets.length]!)
  })
  const times: number[] = []
  for (let replay = -2; replay < REPLAYS; replay++) {
    using start = stream.record()
    stream.replay(graph, 'bench')
    using end = stream.record()
    await stream.synchronize()
    if (replay >= 0) times.push((end.since(start) * 1000) / LAUNCHES)
  }
  return times.sort((a, b) => a - b)[REPLAYS >> 1]!
}

await main()
