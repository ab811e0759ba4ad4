import type { Int4Tensor } from '@fireq/formats'
import type { Handle } from '../backend.js'
import { BackendError } from '../errors.js'
import type { CudaDevice } from './device.js'
import { launchGemm } from './gemm.js'
import { type PackedInt4, packInt4 } from './pack-int4.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export interface PackOptions {
  /** The weight is gate's rows, then up's, half each; `run` then gives SiLU(gate) · up. Default: false. */
  readonly siluMul?: boolean
  /** BF16 [N], in the order of the weight's rows. */
  readonly bias?: Uint16Array
}

export interface LinearInputs {
  /** E4M3 [M, K]. */
  readonly x: CudaBuffer
  /** FP32 [M], one scale a token. */
  readonly xScale: CudaBuffer
  /** M ≥ 0. */
  readonly tokens: number
  /** BF16 [M, N]; of a `siluMul` weight [M, N / 2]. */
  readonly out: CudaBuffer
  /** BF16 [M, N], added before the one rounding; may be `out`. Not with `siluMul`. */
  readonly residual?: CudaBuffer
  /** May start before the kernel before it ends (see LaunchShape). Default: false. */
  readonly dependent?: boolean
}

/**
 * An INT4 weight on a device and its linear layer for FP8 activations:
 * out = diag(xScale) · x · Wᵀ + bias + residual, rounded once to BF16. Group scales are applied exactly, in FP32.
 */
export class CudaLinear implements Handle {
  /** [N, K]. */
  readonly shape: readonly [number, number]
  /** Of device memory. */
  readonly bytes: number
  /** −7…7 takes a cheaper decode than −8…7. */
  readonly codes: '-7…7' | '-8…7'
  /** Group scales in FP32 where BF16 can't hold them. */
  readonly scale: 'bf16' | 'f32'
  readonly siluMul: boolean
  readonly #device: CudaDevice
  readonly #packed: PackedInt4
  readonly #bias: CudaBuffer | null

  private constructor(
    device: CudaDevice,
    shape: readonly [number, number],
    packed: PackedInt4,
    bias: CudaBuffer | null,
    siluMul: boolean,
  ) {
    this.#device = device
    this.#packed = packed
    this.#bias = bias
    this.shape = shape
    this.siluMul = siluMul
    this.bytes = packed.blocks.bytes + (bias?.bytes ?? 0)
    this.codes = packed.full ? '-8…7' : '-7…7'
    this.scale = packed.scaleBytes === 2 ? 'bf16' : 'f32'
  }

  /**
   * Packs a weight into memory for work on `stream`; other streams must wait for an event first. The tensor has groups of
   * 128 along K, N a multiple of 16, and no look-up rounding; leave it alone until the promise settles.
   */
  static async pack(
    device: CudaDevice,
    stream: CudaStream,
    tensor: Int4Tensor,
    { siluMul = false, bias }: PackOptions = {},
  ): Promise<CudaLinear> {
    const what = `packing of an INT4 weight [${tensor.shape.join(', ')}]`
    checkTensor(tensor, bias, what)
    const packed = await packInt4(stream, tensor, siluMul, what)
    let biasBuffer: CudaBuffer | null = null
    try {
      if (bias !== undefined) {
        biasBuffer = stream.allocate(bias.byteLength, `${what}: bias`)
        await stream.upload(biasBuffer, siluMul ? interleave(bias) : bias, `${what}: bias`)
      }
      return new CudaLinear(device, tensor.shape, packed, biasBuffer, siluMul)
    } catch (error) {
      packed.blocks.dispose()
      biasBuffer?.dispose()
      throw error
    }
  }

  /** Enqueues the layer. Nothing is checked on the device: x may hold any E4M3 code but NaN. */
  run(stream: CudaStream, { x, xScale, tokens, out, residual, dependent = false }: LinearInputs): void {
    const [n, k] = this.shape
    const what = `linear of x [${tokens}, ${k}], INT4 weight [${n}, ${k}]${this.siluMul ? ', SiLU' : ''}`
    if (!Number.isInteger(tokens) || tokens < 0 || tokens >= 2 ** 31) {
      throw new BackendError(`${what}: expected a whole number of tokens below 2³¹ but received ${tokens}`)
    }
    if (residual !== undefined && this.siluMul) {
      throw new BackendError(`${what}: expected no residual for SiLU(gate) · up but received one`)
    }
    const columns = this.siluMul ? n / 2 : n
    expectBytes(what, 'x', x, tokens * k)
    expectBytes(what, 'xScale', xScale, tokens * 4)
    expectBytes(what, 'out', out, tokens * columns * 2)
    if (residual !== undefined) expectBytes(what, 'residual', residual, tokens * columns * 2)
    const weight = { ...this.#packed, n, k, siluMul: this.siluMul }
    const operands = { x, xScale, m: tokens, out, bias: this.#bias, residual: residual ?? null, dependent }
    launchGemm(this.#device, stream, { weight, ...operands }, what)
  }

  dispose(): void {
    this.#packed.blocks.dispose()
    this.#bias?.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function checkTensor(tensor: Int4Tensor, bias: Uint16Array | undefined, what: string): void {
  const { shape, groupSize, codes, groupScale, channelScale, lookupRounding } = tensor
  const [n, k] = shape
  const expect = (holds: boolean, wanted: string, received: string | number): void => {
    if (!holds) throw new BackendError(`${what}: expected ${wanted} but received ${received}`)
  }
  expect(Number.isSafeInteger(n) && n > 0 && n % 16 === 0, 'N a multiple of 16', n)
  expect(Number.isSafeInteger(k) && k > 0 && k % 128 === 0, 'K a multiple of 128', k)
  expect(n < 2 ** 31 && k < 2 ** 31, 'N and K below 2³¹', Math.max(n, k))
  expect(groupSize === 128, 'groups of 128', groupSize)
  expect(lookupRounding !== true, 'no look-up rounding', 'a weight with it')
  expect(codes.length === (n * k) / 2, `${(n * k) / 2} bytes of codes`, codes.length)
  expect(groupScale.data.length === (n * k) / 128, `${(n * k) / 128} group scales`, groupScale.data.length)
  expect(channelScale === undefined || channelScale.length === n, `${n} channel scales`, channelScale?.length ?? 0)
  expect(bias === undefined || bias.length === n, `a bias of ${n}`, bias?.length ?? 0)
}

function expectBytes(what: string, name: string, buffer: CudaBuffer, bytes: number): void {
  if (buffer.bytes < bytes) {
    throw new BackendError(`${what}: expected ${name} of at least ${bytes} bytes but received ${buffer.bytes}`)
  }
}

/** The order of a `siluMul` weight's rows: of every sixteen, eight of the first half and the eight of the second. */
function interleave(values: Uint16Array): Uint16Array {
  const half = values.length / 2
  return values.map((_, i) => values[(i % 16 < 8 ? 0 : half) + Math.floor(i / 16) * 8 + (i % 8)]!)
}
