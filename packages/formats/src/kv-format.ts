/**
 * How keys and values are stored. `int4` keeps one scale (and zero point) per token, head and group of ≤ 128 channels.
 */
export type KvFormat =
  | { readonly dtype: 'f32' }
  | { readonly dtype: 'bf16' }
  | {
      readonly dtype: 'int4'
      /** Symmetric: x ≈ s·q, q in −8…7, as the paper. Asymmetric: x ≈ s·(u − z), u and z in 0…15. */
      readonly symmetric: boolean
      readonly scale: 'bf16' | 'e4m3'
    }
