import type { DenseTensor, Int4Tensor } from '@fireq/formats'
import type { Handle } from '../backend.js'
import { BackendError } from '../errors.js'
import type { GemmChoice } from './addon-types.js'
import { DenseLinear } from './dense-linear.js'
import type { CudaDevice } from './device.js'
import type { Fp8Weight } from './fp8-weight.js'
import { Int4Linear } from './int4-linear.js'
import { interleave } from './interleave.js'
import type { Accumulate, LinearKernel, LinearWeight } from './linear-kernel.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'
import { W4a16Linear } from './w4a16-linear.js'

export interface PackOptions {
  /** The weight is gate's rows, then up's, half each; `run` then gives SiLU(gate) · up. Default: false. */
  readonly siluMul?: boolean
  /** BF16 [N], in the order of the weight's rows. */
  readonly bias?: Uint16Array
  /** Type of x; an INT4 weight in groups of 128 takes both. Default: `e4m3` for INT4 and FP8 weights, `bf16` for BF16 ones. */
  readonly activations?: 'e4m3' | 'bf16'
  /**
   * Of FP8 products. `precise` adds them in FP32, so that the error is that of rounding the result to BF16; `fast` leaves
   * that to the tensor cores, which cost it some bits. INT4 in groups of 32 or 64 or with look-up rounding, and BF16
   * activations, are `precise` in any case. Default: `fast`.
   */
  readonly accumulate?: Accumulate
  /** Type of the result; `f32` for FP8 and BF16 weights, without `siluMul`. Default: `bf16`. */
  readonly output?: 'bf16' | 'f32'
}

export interface LinearInputs {
  /** [M, K] of the type that `activations` says. */
  readonly x: CudaBuffer
  /** FP32 [M], one scale a token; with E4M3 activations, and only with those. */
  readonly xScale?: CudaBuffer
  /** M ≥ 0. */
  readonly tokens: number
  /** [M, N] of the type that `output` says; of a `siluMul` weight BF16 [M, N / 2]. */
  readonly out: CudaBuffer
  /** BF16 [M, N], added before the one rounding; may be `out`, if that is BF16. Not with `siluMul`. */
  readonly residual?: CudaBuffer
  /** May start before the kernel before it ends (see LaunchShape). Default: false. */
  readonly dependent?: boolean
}

/**
 * A weight on a device and its linear layer: out = diag(xScale) · x · Wᵀ + bias + residual, rounded once.
 *
 * | weight | activations |
 * | --- | --- |
 * | INT4 in groups of 32, 64 or 128, scales applied exactly in FP32, or with look-up rounding (groups of 128) | E4M3 |
 * | INT4 in groups of 128, scales applied exactly in FP32 | BF16 |
 * | FP8 with a scale an output feature | E4M3 |
 * | BF16 | BF16 |
 */
export class CudaLinear implements Handle {
  /** [N, K]. */
  readonly shape: readonly [number, number]
  /** Of device memory. */
  readonly bytes: number
  readonly siluMul: boolean
  readonly output: 'bf16' | 'f32'
  readonly #kernel: LinearKernel

  private constructor(
    shape: readonly [number, number],
    kernel: LinearKernel,
    options: Pick<CudaLinear, 'siluMul' | 'output'>,
  ) {
    this.shape = shape
    this.siluMul = options.siluMul
    this.output = options.output
    this.bytes = kernel.buffers.reduce((sum, { bytes }) => sum + bytes, 0)
    this.#kernel = kernel
  }

  /** What was packed. */
  get weight(): LinearWeight {
    return this.#kernel.weight
  }

  /** Type of x. */
  get activations(): 'e4m3' | 'bf16' {
    return this.#kernel.activations
  }

  /** What it does, which may be more precise than what was asked for. */
  get accumulate(): Accumulate {
    return this.#kernel.accumulate
  }

  /**
   * Packs a weight into memory for work on `stream`; other streams must wait for an event first. N is a multiple of 16, K
   * of 128. Leave the weight alone until the promise settles.
   */
  static async pack(
    device: CudaDevice,
    stream: CudaStream,
    weight: Int4Tensor | Fp8Weight | DenseTensor,
    options: PackOptions = {},
  ): Promise<CudaLinear> {
    const { siluMul = false, bias, accumulate = 'fast', output = 'bf16' } = options
    const what = `packing of ${kindOf(weight)} weight [${weight.shape.join(', ')}]`
    const [n, k] = checkShape(weight.shape, what)
    const takes = activationsOf[weight.kind]
    const { activations = takes[0]! } = options
    expect(
      takes.includes(activations),
      what,
      `activations ${takes.map((type) => `'${type}'`).join(' or ')}`,
      activations,
    )
    expect(accumulate === 'fast' || accumulate === 'precise', what, "accumulate 'fast' or 'precise'", accumulate)
    expect(output === 'bf16' || output === 'f32', what, "output 'bf16' or 'f32'", output)
    expect(output === 'bf16' || weight.kind !== 'int4', what, 'output bf16 of an INT4 weight', output)
    expect(output === 'bf16' || !siluMul, what, 'output bf16 of SiLU(gate) · up', output)
    expect(bias === undefined || bias.length === n, what, `a bias of ${n}`, bias?.length ?? 0)
    const biasBuffer = bias === undefined ? null : stream.allocate(bias.byteLength, `${what}: bias`)
    try {
      if (biasBuffer !== null) {
        await stream.upload(biasBuffer, siluMul ? interleave(bias!) : bias!, `${what}: bias`)
      }
      const settings = { siluMul, accumulate, output, bias: biasBuffer }
      const kernel =
        weight.kind !== 'int4'
          ? await DenseLinear.load(device, stream, weight, settings, what)
          : activations === 'bf16'
            ? await W4a16Linear.pack(device, stream, weight, settings, what)
            : await Int4Linear.pack(device, stream, weight, settings, what)
      return new CudaLinear([n, k], kernel, settings)
    } catch (error) {
      biasBuffer?.dispose()
      throw error
    }
  }

  /** The kernel that `run` takes for so many tokens, and how the work is cut. */
  choose(tokens: number): GemmChoice {
    return this.#kernel.choose(tokens)
  }

  /** Enqueues the layer. Nothing is checked on the device: x may hold any E4M3 code but NaN. */
  run(stream: CudaStream, { x, xScale, tokens, out, residual, dependent = false }: LinearInputs): void {
    const [n, k] = this.shape
    const { siluMul, activations, output } = this
    const what = `linear of x [${tokens}, ${k}], ${names[this.weight.kind]} weight [${n}, ${k}]${siluMul ? ', SiLU' : ''}`
    expect(
      Number.isInteger(tokens) && tokens >= 0 && tokens < 2 ** 31,
      what,
      'a whole number of tokens below 2³¹',
      tokens,
    )
    if (siluMul) expect(residual === undefined, what, 'no residual for SiLU(gate) · up', 'one')
    if (activations === 'e4m3') expect(xScale !== undefined, what, 'an xScale for x in E4M3', 'none')
    else expect(xScale === undefined, what, 'no xScale for x in BF16', 'one')
    if (output === 'f32')
      expect(residual !== out || residual === undefined, what, 'another residual than out in FP32', 'out')
    const columns = siluMul ? n / 2 : n
    expectBytes(what, 'x', x, tokens * k * (activations === 'e4m3' ? 1 : 2))
    if (xScale !== undefined) expectBytes(what, 'xScale', xScale, tokens * 4)
    expectBytes(what, 'out', out, tokens * columns * (output === 'f32' ? 4 : 2))
    if (residual !== undefined) expectBytes(what, 'residual', residual, tokens * columns * 2)
    const operands = { x, xScale: xScale ?? null, m: tokens, out, residual: residual ?? null, dependent }
    this.#kernel.launch(stream, operands, what)
  }

  dispose(): void {
    for (const buffer of this.#kernel.buffers) buffer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** What x may be; the first is the default. */
const activationsOf: Record<'int4' | 'e4m3' | 'dense', readonly ('e4m3' | 'bf16')[]> = {
  int4: ['e4m3', 'bf16'],
  e4m3: ['e4m3'],
  dense: ['bf16'],
}

const names = { int4: 'INT4', e4m3: 'FP8', bf16: 'BF16' } as const

function kindOf(weight: Int4Tensor | Fp8Weight | DenseTensor): string {
  if (weight.kind === 'int4') return 'an INT4'
  return weight.kind === 'e4m3' ? 'an FP8' : `a ${weight.dtype.toUpperCase()}`
}

function checkShape(shape: readonly number[], what: string): readonly [number, number] {
  const [n = 0, k = 0] = shape
  expect(shape.length === 2, what, 'a matrix', `${shape.length} dimensions`)
  expect(Number.isSafeInteger(n) && n > 0 && n % 16 === 0, what, 'N a multiple of 16', n)
  expect(Number.isSafeInteger(k) && k > 0 && k % 128 === 0, what, 'K a multiple of 128', k)
  expect(n < 2 ** 31 && k < 2 ** 31, what, 'N and K below 2³¹', Math.max(n, k))
  return [n, k]
}

function expect(holds: boolean, what: string, wanted: string, received: string | number): void {
  if (!holds) throw new BackendError(`${what}: expected ${wanted} but received ${received}`)
}

function expectBytes(what: string, name: string, buffer: CudaBuffer, bytes: number): void {
  if (buffer.bytes < bytes) {
    throw new BackendError(`${what}: expected ${name} of at least ${bytes} bytes but received ${buffer.bytes}`)
  }
}
