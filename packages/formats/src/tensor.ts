/**
 * Element types. `i4g` is INT4 in groups along the last axis (codes −8…7 with one scale per group); it is never a plain
 * array's type, only an {@link Int4Tensor}'s.
 */
export type DType =
  | 'f64'
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'e4m3'
  | 'i4g'
  | 'i64'
  | 'i32'
  | 'i16'
  | 'i8'
  | 'u64'
  | 'u32'
  | 'u16'
  | 'u8'
  | 'bool'

/** Types a weight that isn't quantized may have. */
export type FloatDType = 'f32' | 'f16' | 'bf16'

/** Types a group scale may have. */
export type ScaleDType = 'bf16' | 'e4m3' | 'f32'

/** A plain array in row-major order. `data` holds bit patterns for f16 and bf16. */
export type DenseTensor =
  | { readonly kind: 'dense'; readonly dtype: 'f32'; readonly shape: readonly number[]; readonly data: Float32Array }
  | {
      readonly kind: 'dense'
      readonly dtype: 'f16' | 'bf16'
      readonly shape: readonly number[]
      readonly data: Uint16Array
    }

/** Scales as stored: BF16 and E4M3 as bit patterns. */
export type ScaleArray =
  | { readonly dtype: 'f32'; readonly data: Float32Array }
  | { readonly dtype: 'bf16'; readonly data: Uint16Array }
  | { readonly dtype: 'e4m3'; readonly data: Uint8Array }

/**
 * A weight matrix in INT4 groups, in the neutral layout of a checkpoint (no kernel's private order).
 *
 * The value of element (n, k) is `code · groupScale[n, ⌊k/groupSize⌋] · channelScale[n]`. With `lookupRounding` it is
 * `E4M3(code · groupScale) · channelScale[n]`: what a kernel computes that decodes through a table of FP8 products
 * (FireQ's published kernel does; see docs/numerics.md).
 */
export interface Int4Tensor {
  readonly kind: 'int4'
  /** [N output features, K input features]. */
  readonly shape: readonly [number, number]
  /** Elements along K that share a scale; divides K. */
  readonly groupSize: number
  /** N × K/2 bytes: code + 8 in a nibble, even k in the low one. */
  readonly codes: Uint8Array
  /** [N, K/groupSize]; a scale may be negative. */
  readonly groupScale: ScaleArray
  /** [N] factor on the output row, 1 if absent. A tensor scale 2^i is the constant 2^−i here. */
  readonly channelScale?: Float32Array
  readonly lookupRounding?: boolean
}

export type Tensor = DenseTensor | Int4Tensor
