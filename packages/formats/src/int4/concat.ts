import type { DenseTensor, Int4Tensor, ScaleArray, Tensor } from '../tensor.js'
import { checkInt4Tensor } from './check.js'

/**
 * Stacks tensors along their first axis: q, k and v, or gate and up, become one matrix that reads its input once.
 * All dense of one dtype and equal further dims, or all INT4 with equal K, group size, scale type and look-up rounding.
 * @throws TypeError naming the first tensor that doesn't fit
 */
export function concatRows(tensors: readonly Tensor[]): Tensor {
  if (tensors.length === 0) throw new TypeError('Expected at least one tensor for concatRows but received none')
  const first = describe(tensors[0])
  tensors.forEach((t, index) => {
    if (describe(t) !== first) {
      throw new TypeError(`Expected ${first} for tensor ${index} of concatRows but received ${describe(t)}`)
    }
  })
  return tensors[0].kind === 'dense' ? concatDense(tensors as DenseTensor[]) : concatInt4(tensors as Int4Tensor[])
}

/** Everything that must agree, in words. */
function describe(t: Tensor): string {
  if (t.kind === 'dense') {
    if (t.shape.length === 0) throw new TypeError('Expected a tensor with rows for concatRows but received a scalar')
    return `${t.dtype} rows of shape [${t.shape.slice(1)}]`
  }
  const lookup = t.lookupRounding ? ' and look-up rounding' : ''
  return `int4 rows of ${t.shape[1]} in groups of ${t.groupSize} with ${t.groupScale.dtype} scales${lookup}`
}

function concatDense(tensors: DenseTensor[]): DenseTensor {
  const { dtype, shape } = tensors[0]
  const rows = tensors.reduce((sum, t) => sum + t.shape[0], 0)
  const width = shape.slice(1).reduce((product, dim) => product * dim, 1)
  tensors.forEach((t, index) => {
    if (t.data.length !== t.shape[0] * width) {
      throw new TypeError(
        `Expected ${t.shape[0] * width} elements for tensor ${index} of concatRows but received ${t.data.length}`,
      )
    }
  })
  const newShape = [rows, ...shape.slice(1)]
  if (dtype === 'f32') {
    const parts = tensors.map((t) => t.data as Float32Array)
    return { kind: 'dense', dtype, shape: newShape, data: joined(parts, new Float32Array(rows * width)) }
  }
  const parts = tensors.map((t) => t.data as Uint16Array)
  return { kind: 'dense', dtype, shape: newShape, data: joined(parts, new Uint16Array(rows * width)) }
}

function concatInt4(tensors: Int4Tensor[]): Int4Tensor {
  tensors.forEach((t, index) => {
    checkInt4Tensor(t, `tensor ${index} of concatRows`)
  })
  const { shape, groupSize, lookupRounding } = tensors[0]
  const N = tensors.reduce((sum, t) => sum + t.shape[0], 0)
  const K = shape[1]
  const anyChannelScale = tensors.some((t) => t.channelScale)
  const channelScales = tensors.map((t) => t.channelScale ?? new Float32Array(t.shape[0]).fill(1))
  return {
    kind: 'int4',
    shape: [N, K],
    groupSize,
    codes: joined(
      tensors.map((t) => t.codes),
      new Uint8Array((N * K) / 2),
    ),
    groupScale: concatScales(
      tensors.map((t) => t.groupScale),
      N * (K / groupSize),
    ),
    ...(anyChannelScale && { channelScale: joined(channelScales, new Float32Array(N)) }),
    ...(lookupRounding && { lookupRounding }),
  }
}

function concatScales(scales: ScaleArray[], length: number): ScaleArray {
  const { dtype } = scales[0]
  const parts = scales.map((s) => s.data)
  if (dtype === 'f32') return { dtype, data: joined(parts as Float32Array[], new Float32Array(length)) }
  if (dtype === 'bf16') return { dtype, data: joined(parts as Uint16Array[], new Uint16Array(length)) }
  return { dtype, data: joined(parts as Uint8Array[], new Uint8Array(length)) }
}

/** Writes the parts one after another into `out`. */
function joined<T extends Float32Array | Uint16Array | Uint8Array>(parts: T[], out: T): T {
  let offset = 0
  for (const part of parts) {
    out.set(part, offset)
    offset += part.length
  }
  return out
}
