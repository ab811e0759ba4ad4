import type { Int4Tensor } from '@fireq/formats'
import { BackendError } from '../errors.js'
import type { GemmChoice, PlainKind } from './addon-types.js'
import { chooseGemm, choosePlain } from './choose-gemm.js'
import type { CudaDevice } from './device.js'
import { launchGemm } from './gemm.js'
import { interleave } from './interleave.js'
import type { Accumulate, LinearKernel, LinearOperands, LinearWeight } from './linear-kernel.js'
import { type PackedInt4, packInt4 } from './pack-int4.js'
import { launchPlain } from './plain-gemm.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export interface Int4LinearOptions {
  readonly siluMul: boolean
  readonly accumulate: Accumulate
  /** In the packed weight's order; disposed with the layer. */
  readonly bias: CudaBuffer | null
}

/** INT4 weights × FP8 activations. */
export class Int4Linear implements LinearKernel {
  readonly activations = 'e4m3'
  readonly weight: LinearWeight
  readonly accumulate: Accumulate
  readonly buffers: readonly CudaBuffer[]
  readonly #device: CudaDevice
  readonly #shape: readonly [number, number]
  readonly #packed: PackedInt4
  readonly #channelScale: CudaBuffer | null
  readonly #options: Int4LinearOptions
  /** Null: the fast kernels. */
  readonly #plain: PlainKind | null
  readonly #choices = new Map<number, GemmChoice>()

  private constructor(
    device: CudaDevice,
    { shape, groupSize, lookupRounding = false }: Int4Tensor,
    packed: PackedInt4,
    channelScale: CudaBuffer | null,
    options: Int4LinearOptions,
  ) {
    this.#device = device
    this.#shape = shape
    this.#packed = packed
    this.#channelScale = channelScale
    this.#options = options
    this.buffers = [packed.blocks, channelScale, options.bias].filter((buffer) => buffer !== null)
    const { full, scaleBytes } = packed
    this.weight = {
      kind: 'int4',
      groupSize,
      codes: full ? '-8…7' : '-7…7',
      scale: scaleBytes === 2 ? 'bf16' : 'f32',
      lookupRounding,
    }
    const isFast = groupSize === 128 && !lookupRounding && options.accumulate === 'fast'
    this.accumulate = isFast ? 'fast' : 'precise'
    this.#plain = isFast ? null : lookupRounding ? 'i4_exact_lookup' : `i4_exact_g${groupSize as 32 | 64 | 128}`
  }

  static async pack(
    device: CudaDevice,
    stream: CudaStream,
    tensor: Int4Tensor,
    options: Int4LinearOptions,
    what: string,
  ): Promise<Int4Linear> {
    checkInt4Tensor(tensor, what)
    const { channelScale, lookupRounding } = tensor
    const packed = await packInt4(stream, tensor, options.siluMul, what)
    // Rounding a product comes before its row's factor, so that one can't be part of the group scales.
    if (!lookupRounding || channelScale === undefined) return new Int4Linear(device, tensor, packed, null, options)
    let factors: CudaBuffer | undefined
    try {
      factors = stream.allocate(channelScale.byteLength, `${what}: channel scales`)
      const ordered = options.siluMul ? interleave(channelScale) : channelScale
      await stream.upload(factors, ordered, `${what}: channel scales`)
      return new Int4Linear(device, tensor, packed, factors, options)
    } catch (error) {
      packed.blocks.dispose()
      factors?.dispose()
      throw error
    }
  }

  choose(m: number): GemmChoice {
    let choice = this.#choices.get(m)
    if (choice === undefined) {
      const [n, k] = this.#shape
      const { multiprocessors } = this.#device.info
      choice =
        this.#plain === null ? chooseGemm(m, n, k, multiprocessors) : choosePlain(this.#plain, m, n, k, multiprocessors)
      this.#choices.set(m, choice)
    }
    return choice
  }

  launch(stream: CudaStream, operands: LinearOperands, what: string): void {
    const [n, k] = this.#shape
    const { siluMul, bias } = this.#options
    const { blocks, full, scaleBytes } = this.#packed
    const choice = this.choose(operands.m)
    const weight = { blocks, n, k, full, scaleBytes, siluMul }
    if (choice.family !== 'plain') {
      launchGemm(this.#device, stream, { ...operands, weight, bias }, choice, what)
      return
    }
    const { features, tokens } = choice
    const name = `${this.#plain}_f${features}_t${tokens}_${full ? 'full' : 'sym'}_${scaleBytes === 2 ? 'bf16' : 'fp32'}`
    const plain = { data: blocks, layout: 'packed', n, k, channelScale: this.#channelScale, bias } as const
    const out = siluMul ? 'siluMul' : 'bf16'
    launchPlain(this.#device, stream, { ...plain, out }, operands, { name, choice }, what)
  }
}

/** Throws unless kernels can take the tensor; whatever is given by number is checked against the others. */
export function checkInt4Tensor(tensor: Int4Tensor, what: string): void {
  const { shape, groupSize, codes, groupScale, channelScale, lookupRounding } = tensor
  const [n, k] = shape
  const expect = (holds: boolean, wanted: string, received: string | number): void => {
    if (!holds) throw new BackendError(`${what}: expected ${wanted} but received ${received}`)
  }
  expect([32, 64, 128].includes(groupSize), 'groups of 32, 64 or 128', groupSize)
  expect(lookupRounding !== true || groupSize === 128, 'groups of 128 with look-up rounding', groupSize)
  expect(codes.length === (n * k) / 2, `${(n * k) / 2} bytes of codes`, codes.length)
  const groups = (n * k) / groupSize
  expect(groupScale.data.length === groups, `${groups} group scales`, groupScale.data.length)
  expect(channelScale === undefined || channelScale.length === n, `${n} channel scales`, channelScale?.length ?? 0)
}
