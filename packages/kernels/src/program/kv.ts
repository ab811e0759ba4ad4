import type { KvFormat } from '@fireq/formats'

export interface KvCacheSpec {
  readonly numLayers: number
  readonly numKeyValueHeads: number
  readonly headDim: number
  readonly format: KvFormat
}

/** Channels that share a scale in an INT4 cache: the whole head, 128 at the most. */
export function kvGroupSize(spec: KvCacheSpec): number {
  return Math.min(spec.headDim, 128)
}

/** Bytes that one token takes in all layers, keys and values, scales included. */
export function kvBytesPerToken(spec: KvCacheSpec): number {
  const heads = spec.numLayers * spec.numKeyValueHeads * 2
  const { format } = spec
  if (format.dtype !== 'int4') return heads * spec.headDim * (format.dtype === 'f32' ? 4 : 2)
  const groups = Math.ceil(spec.headDim / kvGroupSize(spec))
  const scaleBytes = (format.scale === 'bf16' ? 2 : 1) + (format.symmetric ? 0 : 1)
  return heads * (Math.ceil(spec.headDim / 2) + groups * scaleBytes)
}
