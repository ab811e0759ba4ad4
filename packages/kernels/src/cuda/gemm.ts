import { BackendError } from '../errors.js'
import type { GemmChoice } from './addon-types.js'
import type { CudaDevice } from './device.js'
import { type KernelInfo, kernelInfo } from './kernel-info.js'
import type { LinearOperands } from './linear-kernel.js'
import type { CudaBuffer } from './resources.js'
import { type Argument, type CudaStream, KEPT_BYTES, type TensorMap } from './stream.js'

// The launcher of kernels/cuda/gemm_small.cuh, gemm_medium.cuh and gemm_large.cuh.

/** A weight [N, K] packed in groups of 128 as the kernels read it. */
export interface PackedWeight {
  readonly blocks: CudaBuffer
  readonly n: number
  readonly k: number
  /** Codes −8…7, else −7…7. */
  readonly full: boolean
  readonly scaleBytes: 2 | 4
  /** Gate and up interleaved: out is [M, N / 2]. */
  readonly siluMul: boolean
}

export interface Gemm extends LinearOperands {
  readonly weight: PackedWeight
  /** BF16 [N], in the packed weight's order. */
  readonly bias: CudaBuffer | null
}

/** Enqueues the chosen kernel; for M = 0, nothing. Sizes of buffers are the caller's business. */
export function launchGemm(device: CudaDevice, stream: CudaStream, gemm: Gemm, choice: GemmChoice, what: string): void {
  const { weight } = gemm
  if (choice.family === 'none') return
  const name = gemmKernelName(choice, weight)
  const kernel = device.kernel(name)
  const info = kernelInfo(kernel, name)
  if (info.fullCodes !== weight.full || info.scaleBytes !== weight.scaleBytes) {
    throw new BackendError(`${what}: kernel ${name} doesn't read weights as they are packed`)
  }
  const cut = choice.family === 'small' ? cutSmall(gemm, choice, info) : cutLarge(gemm, choice, info, stream, what)
  const shape = { block: [info.threads, 1, 1], sharedBytes: info.sharedBytes, dependent: gemm.dependent } as const
  stream.launch(kernel, { ...shape, grid: cut.grid, cluster: cut.cluster }, [{ fields: cut.fields }], what)
}

export function gemmKernelName(
  { family, features, tokens }: GemmChoice,
  { full, scaleBytes, siluMul }: Pick<PackedWeight, 'full' | 'scaleBytes' | 'siluMul'>,
): string {
  const silu = siluMul && family === 'small' ? 'silu_' : '' // a large kernel takes what it ends with as a parameter
  const kind = `${silu}${full ? 'full' : 'sym'}_${scaleBytes === 2 ? 'bf16' : 'fp32'}`
  return `i4_${family}_f${features}_t${tokens}_${kind}`
}

interface Cut {
  readonly grid: readonly [number, number, number]
  readonly cluster: number
  /** The kernel's parameters, in their order. */
  readonly fields: readonly Exclude<Argument, { readonly fields: unknown }>[]
}

const i32 = (value: number) => ({ type: 'i32', value }) as const

/** GemmSmallParams; a cluster has every part of K of its features. */
function cutSmall({ weight, x, xScale, m, out, bias, residual }: Gemm, choice: GemmChoice, info: KernelInfo): Cut {
  const { n, k, blocks } = weight
  const { tokens, cluster, batch, features } = info
  const groups: TensorMap = {
    tensor: x,
    type: 'u8',
    sizes: [128, m, k / 128],
    strides: [k, 128],
    box: [128, tokens / cluster, batch],
    swizzle: 128,
  }
  const ranks = cluster * choice.split
  return {
    grid: [Math.ceil(n / (features * cluster)) * ranks, Math.ceil(m / tokens), 1],
    cluster: ranks,
    fields: [groups, blocks, xScale, out, bias, residual, i32(m), i32(n), i32(k)],
  }
}

/** GemmLargeParams; persistent blocks. Its cluster is compiled in. */
function cutLarge(
  gemm: Gemm,
  { sweep, clusters, cut }: GemmChoice,
  info: KernelInfo,
  stream: CudaStream,
  what: string,
): Cut {
  const { weight, x, xScale, m, out, bias, residual } = gemm
  const { n, k, blocks, siluMul } = weight
  const { tokens, cluster, storeTokens, keptBytes } = info
  if (keptBytes > KEPT_BYTES) {
    throw new BackendError(
      `${what}: expected a kernel whose blocks keep at most ${KEPT_BYTES} bytes but received ${keptBytes}`,
    )
  }
  const kept = cut > 0 ? stream.keptSums() : null
  const columns = siluMul ? n / 2 : n
  const activations: TensorMap = {
    tensor: x,
    type: 'u8',
    sizes: [k, m],
    strides: [k],
    box: [128, tokens / cluster],
    swizzle: 128,
  }
  const like = (tensor: CudaBuffer): TensorMap => ({
    tensor,
    type: 'bf16',
    sizes: [columns, m],
    strides: [2 * columns],
    box: [siluMul ? 32 : 64, storeTokens],
    swizzle: siluMul ? 64 : 128,
  })
  return {
    grid: [clusters * cluster, 1, 1],
    cluster: 1,
    fields: [
      ...[
        activations,
        like(out),
        like(residual ?? out),
        blocks,
        xScale,
        bias,
        residual,
        kept?.sums ?? null,
        kept?.ready ?? null,
      ],
      ...[i32(m), i32(n), i32(k), i32(sweep), i32(cut), i32(siluMul ? 1 : 0)],
    ],
  }
}
