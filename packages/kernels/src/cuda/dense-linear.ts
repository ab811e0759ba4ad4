import { setImmediate } from 'node:timers/promises'
import type { DenseTensor } from '@fireq/formats'
import { BackendError } from '../errors.js'
import type { GemmChoice, PlainKind } from './addon-types.js'
import { choosePlain } from './choose-gemm.js'
import type { CudaDevice } from './device.js'
import type { Fp8Weight } from './fp8-weight.js'
import { interleave, interleavedRows } from './interleave.js'
import type { Accumulate, LinearKernel, LinearOperands, LinearWeight } from './linear-kernel.js'
import { launchPlain } from './plain-gemm.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export interface DenseLinearOptions {
  readonly siluMul: boolean
  readonly accumulate: Accumulate
  readonly output: 'bf16' | 'f32'
  /** In the order of the weight's rows on the device; disposed with the layer. */
  readonly bias: CudaBuffer | null
}

/** FP8 weights × FP8 activations, or BF16 × BF16. */
export class DenseLinear implements LinearKernel {
  readonly weight: LinearWeight
  readonly activations: 'e4m3' | 'bf16'
  readonly accumulate: Accumulate
  readonly buffers: readonly CudaBuffer[]
  readonly #device: CudaDevice
  readonly #shape: readonly [number, number]
  readonly #data: CudaBuffer
  readonly #channelScale: CudaBuffer | null
  readonly #options: DenseLinearOptions
  readonly #plain: PlainKind

  private constructor(
    device: CudaDevice,
    shape: readonly [number, number],
    data: CudaBuffer,
    channelScale: CudaBuffer | null,
    options: DenseLinearOptions,
  ) {
    this.#device = device
    this.#shape = shape
    this.#data = data
    this.#channelScale = channelScale
    this.#options = options
    this.buffers = [data, channelScale, options.bias].filter((buffer) => buffer !== null)
    this.activations = channelScale === null ? 'bf16' : 'e4m3'
    this.weight = { kind: this.activations }
    // The tensor cores add BF16 products in FP32.
    this.accumulate = this.activations === 'bf16' ? 'precise' : options.accumulate
    this.#plain =
      this.activations === 'bf16' ? 'bf16_dense' : this.accumulate === 'fast' ? 'e4m3_dense' : 'e4m3_precise'
  }

  static async load(
    device: CudaDevice,
    stream: CudaStream,
    weight: Fp8Weight | DenseTensor,
    options: DenseLinearOptions,
    what: string,
  ): Promise<DenseLinear> {
    const { shape, values, channelScale } = checkDense(weight, what)
    const made: CudaBuffer[] = []
    const allocate = (bytes: number, of: string): CudaBuffer => {
      const buffer = stream.allocate(bytes, of)
      made.push(buffer)
      return buffer
    }
    try {
      const data = allocate(values.byteLength, what)
      if (options.siluMul) await uploadInterleaved(stream, data, values, shape[0], what)
      else await stream.upload(data, values, what)
      if (channelScale === null) return new DenseLinear(device, shape, data, null, options)
      const factors = allocate(channelScale.byteLength, `${what}: channel scales`)
      await stream.upload(factors, options.siluMul ? interleave(channelScale) : channelScale, `${what}: channel scales`)
      return new DenseLinear(device, shape, data, factors, options)
    } catch (error) {
      for (const buffer of made) buffer.dispose()
      throw error
    }
  }

  choose(m: number): GemmChoice {
    return choosePlain(this.#plain, m, ...this.#shape, this.#device.info.multiprocessors)
  }

  launch(stream: CudaStream, operands: LinearOperands, what: string): void {
    const [n, k] = this.#shape
    const { siluMul, output, bias } = this.#options
    const choice = this.choose(operands.m)
    const name = `${this.#plain}_f${choice.features}_t${choice.tokens}`
    const weight = { data: this.#data, layout: this.activations, n, k, channelScale: this.#channelScale, bias }
    const out = siluMul ? 'siluMul' : output
    launchPlain(this.#device, stream, { ...weight, out }, operands, { name, choice }, what)
  }
}

interface CheckedDense {
  readonly shape: readonly [number, number]
  readonly values: Uint8Array | Uint16Array
  readonly channelScale: Float32Array | null
}

function checkDense(weight: Fp8Weight | DenseTensor, what: string): CheckedDense {
  const [n, k] = weight.shape as [number, number]
  const expect = (holds: boolean, wanted: string, received: string | number): void => {
    if (!holds) throw new BackendError(`${what}: expected ${wanted} but received ${received}`)
  }
  if (weight.kind === 'dense') {
    const { dtype, data } = weight
    if (dtype !== 'bf16') throw new BackendError(`${what}: expected BF16 values but received ${dtype}`)
    expect(data.length === n * k, `${n * k} values`, data.length)
    return { shape: [n, k], values: data, channelScale: null }
  }
  const { codes, channelScale } = weight
  expect(codes.length === n * k, `${n * k} codes`, codes.length)
  expect(channelScale.length === n, `${n} channel scales`, channelScale.length)
  const wrong = channelScale.findIndex((scale) => !Number.isFinite(scale))
  expect(wrong < 0, 'finite channel scales', `${channelScale[wrong]} at row ${wrong}`)
  return { shape: [n, k], values: codes, channelScale }
}

/** Bytes put in order at a time. */
const PIECE_BYTES = 2 ** 21

async function uploadInterleaved(
  stream: CudaStream,
  to: CudaBuffer,
  values: Uint8Array | Uint16Array,
  rows: number,
  what: string,
): Promise<void> {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  const rowBytes = bytes.length / rows
  const step = 16 * Math.max(1, Math.floor(PIECE_BYTES / rowBytes / 16))
  for (let first = 0; first < rows; first += step) {
    const piece = interleavedRows(bytes, rowBytes, first, Math.min(step, rows - first))
    await stream.upload(to, piece, what, first * rowBytes)
    await setImmediate() // lets others run between two
  }
}
