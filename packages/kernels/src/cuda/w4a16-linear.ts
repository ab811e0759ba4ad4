import type { Int4Tensor } from '@fireq/formats'
import { BackendError } from '../errors.js'
import type { GemmChoice } from './addon-types.js'
import { chooseW4a16 } from './choose-gemm.js'
import type { CudaDevice } from './device.js'
import { checkInt4Tensor, type Int4LinearOptions } from './int4-linear.js'
import type { LinearKernel, LinearOperands, LinearWeight } from './linear-kernel.js'
import { type PackedInt4, packInt4 } from './pack-int4.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'
import { launchW4a16 } from './w4a16-gemm.js'

/** INT4 weights in groups of 128 × BF16 activations. */
export class W4a16Linear implements LinearKernel {
  readonly activations = 'bf16'
  /** Sums are FP32's, and scales are applied in FP32. */
  readonly accumulate = 'precise'
  readonly weight: LinearWeight
  readonly buffers: readonly CudaBuffer[]
  readonly #device: CudaDevice
  readonly #shape: readonly [number, number]
  readonly #packed: PackedInt4
  readonly #options: Int4LinearOptions

  private constructor(
    device: CudaDevice,
    { shape, groupSize }: Int4Tensor,
    packed: PackedInt4,
    options: Int4LinearOptions,
  ) {
    this.#device = device
    this.#shape = shape
    this.#packed = packed
    this.#options = options
    this.buffers = [packed.blocks, options.bias].filter((buffer) => buffer !== null)
    const scale = packed.scaleBytes === 2 ? 'bf16' : 'f32'
    this.weight = { kind: 'int4', groupSize, codes: '-8…7', scale, lookupRounding: false }
  }

  static async pack(
    device: CudaDevice,
    stream: CudaStream,
    tensor: Int4Tensor,
    options: Int4LinearOptions,
    what: string,
  ): Promise<W4a16Linear> {
    checkInt4Tensor(tensor, what)
    const { groupSize, lookupRounding } = tensor
    if (groupSize !== 128 || lookupRounding) {
      const received = lookupRounding ? 'look-up rounding' : `groups of ${groupSize}`
      throw new BackendError(
        `${what}: expected groups of 128 without look-up rounding for BF16 activations but received ${received}`,
      )
    }
    return new W4a16Linear(device, tensor, await packInt4(stream, tensor, options.siluMul, what, 'bf16'), options)
  }

  choose(m: number): GemmChoice {
    const [n, k] = this.#shape
    return chooseW4a16(m, n, k, this.#device.info.multiprocessors)
  }

  launch(stream: CudaStream, operands: LinearOperands, what: string): void {
    const [n, k] = this.#shape
    const { siluMul, bias } = this.#options
    const { blocks, scaleBytes } = this.#packed
    const choice = this.choose(operands.m)
    launchW4a16(this.#device, stream, { blocks, n, k, scaleBytes, siluMul, bias }, operands, choice, what)
  }
}
