import assert from 'node:assert/strict'
import { bf16BitsToF32 } from '@fireq/formats'
import type { CudaDevice } from '../../../src/cuda/device.js'
import { CudaLinear } from '../../../src/cuda/linear.js'
import type { CudaBuffer } from '../../../src/cuda/resources.js'
import type { CudaStream } from '../../../src/cuda/stream.js'
import type { Random } from '../../conformance/random.js'
import {
  describeProblem,
  errorsOf,
  expectedOutputs,
  makeProblem,
  type Problem,
  type ProblemSpec,
} from './linear-problem.js'

const GUARD_ROWS = 8
/** NaNs. */
const POISON = { bf16: 0xffff, f32: 0xffffffff } as const

/** A problem on a device: packed, uploaded, its output poisoned, with room behind that must stay as it is. */
export class OnDevice implements Disposable {
  readonly #buffers: CudaBuffer[] = []
  readonly columns: number
  readonly x: CudaBuffer
  readonly xScale: CudaBuffer | undefined
  readonly out: CudaBuffer
  readonly residual: CudaBuffer | undefined

  private constructor(
    readonly problem: Problem,
    readonly linear: CudaLinear,
    stream: CudaStream,
  ) {
    const { m, n, siluMul, output, x, xScale, residualBits } = problem
    this.columns = siluMul ? n / 2 : n
    const allocate = (bytes: number): CudaBuffer => {
      const buffer = stream.allocate(bytes, 'test')
      this.#buffers.push(buffer)
      return buffer
    }
    this.x = allocate(x.byteLength)
    if (xScale) this.xScale = allocate(m * 4)
    this.out = allocate((m + GUARD_ROWS) * this.columns * (output === 'f32' ? 4 : 2))
    if (residualBits) this.residual = allocate(m * n * 2)
  }

  static async create(device: CudaDevice, stream: CudaStream, problem: Problem): Promise<OnDevice> {
    const { tensor, biasBits, siluMul = false, accumulate, output, activations } = problem
    const linear = await CudaLinear.pack(device, stream, tensor, {
      siluMul,
      ...(biasBits && { bias: biasBits }),
      ...(accumulate && { accumulate }),
      ...(output && { output }),
      ...(activations && { activations }),
    })
    const made = new OnDevice(problem, linear, stream)
    await stream.upload(made.x, problem.x, 'x')
    if (made.xScale) await stream.upload(made.xScale, problem.xScale!, 'xScale')
    if (made.residual) await stream.upload(made.residual, problem.residualBits!, 'residual')
    return made
  }

  run(stream: CudaStream, dependent = false): void {
    const { x, xScale, out, residual, problem } = this
    const given = { x, tokens: problem.m, out, dependent, ...(xScale && { xScale }), ...(residual && { residual }) }
    this.linear.run(stream, given)
  }

  poison(stream: CudaStream): void {
    stream.fill(this.out, 0xff, 'poison')
  }

  /** The output's bit patterns, guard rows too. */
  async result(stream: CudaStream): Promise<Uint16Array | Uint32Array> {
    const { bytes } = this.out
    const into = this.problem.output === 'f32' ? new Uint32Array(bytes / 4) : new Uint16Array(bytes / 2)
    return stream.download(this.out, into, 'out')
  }

  /** The same of its own rows. */
  async written(stream: CudaStream): Promise<Uint16Array | Uint32Array> {
    return (await this.result(stream)).subarray(0, this.problem.m * this.columns)
  }

  [Symbol.dispose](): void {
    this.linear.dispose()
    for (const buffer of this.#buffers) buffer.dispose()
  }
}

/** Runs a problem and compares it with the reference; nothing is left unwritten, nothing behind the end is touched. */
export async function check(device: CudaDevice, random: Random, spec: ProblemSpec): Promise<void> {
  const problem = makeProblem(random, spec)
  using stream = device.createStream()
  using on = await OnDevice.create(device, stream, problem)
  on.poison(stream)
  on.run(stream)
  const out = await on.result(stream)
  const { family, features, tokens, split } = on.linear.choose(spec.m)
  const name = `${describeProblem(spec)} (${family} f${features} t${tokens} split ${split})`
  const poison = POISON[spec.output ?? 'bf16']
  const written = spec.m * on.columns
  assert.ok(
    out.subarray(written).every((bits) => bits === poison),
    `${name}: wrote behind the end`,
  )
  const unwritten = out.subarray(0, written).indexOf(poison)
  assert.equal(unwritten, -1, `${name}: element ${unwritten} was not written`)
  const floats = new Float32Array(out.buffer)
  const valueAt = (at: number): number => (spec.output === 'f32' ? floats[at]! : bf16BitsToF32(out[at]!))
  const wrong: string[] = []
  const expected = await expectedOutputs(random, problem, on.linear.accumulate)
  const actual = expected.map(({ row, column }) => valueAt(row * on.columns + column))
  expected.forEach(({ row, column, value, tolerance }, i) => {
    if (!(Math.abs(actual[i]! - value) <= tolerance))
      wrong.push(`[${row}, ${column}] is ${actual[i]}, not ${value} ± ${tolerance}`)
  })
  assert.equal(wrong.length, 0, `${name}: ${wrong.length} of ${expected.length} wrong, the first: ${wrong[0]}`)
  const { rounding, relative } = errorsOf(actual, expected)
  assert.ok(relative < mostRelative(problem, on.linear), `${name}: relative error ${relative}`)
  if (on.linear.accumulate === 'precise' && spec.output !== 'f32' && !spec.siluMul) {
    assert.ok(rounding <= 1.05, `${name}: ${rounding} × the error of rounding to BF16`)
  }
}

/** The same bits every time: alone, started while the launch before runs, and in a graph. */
export async function checkRepeats(device: CudaDevice, random: Random, spec: ProblemSpec): Promise<void> {
  using stream = device.createStream()
  using on = await OnDevice.create(device, stream, makeProblem(random, spec))
  on.run(stream)
  const wanted = (await on.written(stream)).slice()
  using graph = stream.capture(() => {
    for (let i = 0; i < 4; i++) on.run(stream, true)
  })
  for (let i = 0; i < 3; i++) {
    on.poison(stream)
    for (let j = 0; j < 5; j++) on.run(stream, true)
    assert.deepEqual(await on.written(stream), wanted)
    on.poison(stream)
    stream.replay(graph, 'four linears')
    assert.deepEqual(await on.written(stream), wanted)
  }
}

function mostRelative({ output }: Problem, { accumulate, weight }: CudaLinear): number {
  if (output !== 'f32' || accumulate === 'fast') return 6e-3
  return weight.kind === 'bf16' ? 2e-5 : 1e-3
}
