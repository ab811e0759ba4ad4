import type { GemmChoice } from './addon-types.js'
import type { CudaDevice } from './device.js'
import { kernelInfo } from './kernel-info.js'
import type { LinearOperands } from './linear-kernel.js'
import type { CudaBuffer } from './resources.js'
import type { Argument, CudaStream, TensorMap } from './stream.js'

// The launcher of kernels/cuda/gemm_exact.cuh and gemm_dense.cuh: what plain_gemm.cuh has for both.

/** A weight as plain kernels read it. */
export interface PlainWeight {
  /** Packed blocks, or an [N, K] matrix. */
  readonly data: CudaBuffer
  readonly layout: 'packed' | 'e4m3' | 'bf16'
  readonly n: number
  readonly k: number
  /** FP32 [N], and BF16 [N]. */
  readonly channelScale: CudaBuffer | null
  readonly bias: CudaBuffer | null
  readonly out: 'bf16' | 'f32' | 'siluMul'
}

/** Enqueues kernel `name`, which `choice` stands for; for M = 0, nothing. Sizes of buffers are the caller's business. */
export function launchPlain(
  device: CudaDevice,
  stream: CudaStream,
  weight: PlainWeight,
  operands: LinearOperands,
  { name, choice }: { readonly name: string; readonly choice: GemmChoice },
  what: string,
): void {
  if (choice.family === 'none') return
  const { n, k, data, layout } = weight
  const { m, x } = operands
  const kernel = device.kernel(name)
  const { features, tokens, threads, sharedBytes } = kernelInfo(kernel, name)
  const type = layout === 'bf16' ? 'bf16' : 'e4m3'
  const activations = slices(x, type, m, k, tokens)
  const operand = layout === 'packed' ? [activations, data] : [slices(data, type, n, k, features), activations]
  const clusters = Math.ceil(m / tokens) * Math.ceil(n / features)
  stream.launch(
    kernel,
    {
      grid: [clusters * choice.split, 1, 1],
      block: [threads, 1, 1],
      cluster: choice.split,
      sharedBytes,
      dependent: operands.dependent,
    },
    [{ fields: [...operand, ...problem(weight, operands, choice.sweep)] }],
    what,
  )
}

/** 128 bytes along K of so many rows. */
function slices(matrix: CudaBuffer, type: 'e4m3' | 'bf16', rows: number, k: number, boxRows: number): TensorMap {
  const size = type === 'bf16' ? 2 : 1
  return {
    tensor: matrix,
    type: type === 'bf16' ? 'bf16' : 'u8',
    sizes: [k, rows],
    strides: [k * size],
    box: [128 / size, boxRows],
    swizzle: 128,
  }
}

const outKinds = { bf16: 0, f32: 1, siluMul: 2 } as const

/** PlainProblem. */
function problem(
  weight: PlainWeight,
  operands: LinearOperands,
  sweep: number,
): Exclude<Argument, { fields: unknown }>[] {
  const { n, k, channelScale, bias } = weight
  const { m, xScale, out, residual } = operands
  const sizes = [m, n, k, sweep, outKinds[weight.out]].map((value) => ({ type: 'i32', value }) as const)
  return [xScale, channelScale, out, bias, residual, ...sizes]
}
