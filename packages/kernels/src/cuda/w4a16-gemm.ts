import type { GemmChoice } from './addon-types.js'
import type { CudaDevice } from './device.js'
import { type KernelInfo, kernelInfo } from './kernel-info.js'
import type { LinearOperands } from './linear-kernel.js'
import type { CudaBuffer } from './resources.js'
import type { Argument, CudaStream, TensorMap } from './stream.js'

// The launcher of kernels/cuda/gemm_w4a16.cuh and gemm_w4a16_large.cuh.

/** A weight [N, K] packed for BF16 activations. */
export interface W4a16Weight {
  readonly blocks: CudaBuffer
  readonly n: number
  readonly k: number
  readonly scaleBytes: 2 | 4
  /** Gate and up interleaved: out is [M, N / 2]. */
  readonly siluMul: boolean
  /** BF16 [N], in the packed weight's order. */
  readonly bias: CudaBuffer | null
}

export function w4a16KernelName(
  { family, features, tokens }: GemmChoice,
  { scaleBytes, siluMul }: Pick<W4a16Weight, 'scaleBytes' | 'siluMul'>,
): string {
  return `w4a16_${family}_f${features}_t${tokens}${siluMul ? '_silu' : ''}_${scaleBytes === 2 ? 'bf16' : 'fp32'}`
}

/** Enqueues the chosen kernel; for M = 0, nothing. Sizes of buffers are the caller's business. */
export function launchW4a16(
  device: CudaDevice,
  stream: CudaStream,
  weight: W4a16Weight,
  operands: LinearOperands,
  choice: GemmChoice,
  what: string,
): void {
  if (choice.family === 'none') return
  const name = w4a16KernelName(choice, weight)
  const kernel = device.kernel(name)
  const info = kernelInfo(kernel, name)
  const cut = choice.family === 'small' ? cutSmall : cutLarge
  const { grid, cluster, fields } = cut(weight, operands, choice, info, device.info.multiprocessors)
  const shape = { block: [info.threads, 1, 1], sharedBytes: info.sharedBytes, dependent: operands.dependent } as const
  stream.launch(kernel, { ...shape, grid, cluster }, [{ fields }], what)
}

interface Cut {
  readonly grid: readonly [number, number, number]
  readonly cluster: number
  /** The kernel's parameters, in their order. */
  readonly fields: readonly Exclude<Argument, { readonly fields: unknown }>[]
}

const i32 = (value: number) => ({ type: 'i32', value }) as const

/** BF16 [K / 64, M, 64]; a box has `batch` slices of 64 of K. */
function activations({ k }: W4a16Weight, { x, m }: LinearOperands, { tokens, cluster, batch }: KernelInfo): TensorMap {
  return {
    tensor: x,
    type: 'bf16',
    sizes: [64, m, k / 64],
    strides: [2 * k, 128],
    box: [64, tokens / cluster, batch],
    swizzle: 128,
  }
}

/** GemmSmallParams, without token scales; a cluster has every part of K of its features. */
function cutSmall(weight: W4a16Weight, operands: LinearOperands, { split }: GemmChoice, info: KernelInfo): Cut {
  const { n, k, blocks, bias } = weight
  const { m, out, residual } = operands
  return {
    grid: [Math.ceil(n / info.features) * split, Math.ceil(m / info.tokens), 1],
    cluster: split,
    fields: [activations(weight, operands, info), blocks, null, out, bias, residual, i32(m), i32(n), i32(k)],
  }
}

/** GemmW4a16LargeParams; persistent blocks, as many as there are tiles or multiprocessors. Its cluster is compiled in. */
function cutLarge(
  weight: W4a16Weight,
  operands: LinearOperands,
  { sweep }: GemmChoice,
  info: KernelInfo,
  multiprocessors: number,
): Cut {
  const { n, k, blocks, bias, siluMul } = weight
  const { m, out, residual } = operands
  const { tokens, cluster, features, storeTokens } = info
  const columns = siluMul ? n / 2 : n
  const output: TensorMap = {
    tensor: out,
    type: 'bf16',
    sizes: [columns, m],
    strides: [2 * columns],
    box: [siluMul ? 32 : 64, storeTokens],
    swizzle: siluMul ? 64 : 128,
  }
  const tiles = Math.ceil(m / tokens) * Math.ceil(n / (features * cluster))
  const sizes = [m, n, k, sweep].map(i32)
  return {
    grid: [Math.min(tiles, Math.floor(multiprocessors / cluster)) * cluster, 1, 1],
    cluster: 1,
    fields: [activations(weight, operands, info), output, blocks, bias, residual, ...sizes],
  }
}
