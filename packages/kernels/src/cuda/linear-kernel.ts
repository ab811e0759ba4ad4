import type { GemmChoice } from './addon-types.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

/** `fast`: sums stay in the tensor cores, as cuBLASLt's with fast accumulation do. `precise`: they are added in FP32. */
export type Accumulate = 'fast' | 'precise'

/** What a linear layer multiplies by. */
export type LinearWeight =
  | {
      readonly kind: 'int4'
      readonly groupSize: number
      /** −7…7 takes a cheaper decode than −8…7. */
      readonly codes: '-7…7' | '-8…7'
      /** Group scales in FP32 where BF16 can't hold them. */
      readonly scale: 'bf16' | 'f32'
      /** Decoded as E4M3(code · scale), else exactly. */
      readonly lookupRounding: boolean
    }
  | { readonly kind: 'e4m3' }
  | { readonly kind: 'bf16' }

/** One multiplication, its buffers of the right sizes. */
export interface LinearOperands {
  /** [M, K]. */
  readonly x: CudaBuffer
  /** FP32 [M]; null for BF16 activations. */
  readonly xScale: CudaBuffer | null
  readonly m: number
  /** [M, N], or [M, N / 2]. */
  readonly out: CudaBuffer
  /** BF16 [M, N]; may be `out`. */
  readonly residual: CudaBuffer | null
  readonly dependent: boolean
}

/** A weight on a device with the kernels that multiply by it. */
export interface LinearKernel {
  readonly weight: LinearWeight
  readonly activations: 'e4m3' | 'bf16'
  readonly accumulate: Accumulate
  /** Everything it keeps on the device. */
  readonly buffers: readonly CudaBuffer[]
  /** The kernel for M tokens, and how the work is cut. */
  choose(m: number): GemmChoice
  /** Enqueues; for M = 0, nothing. */
  launch(stream: CudaStream, operands: LinearOperands, what: string): void
}
