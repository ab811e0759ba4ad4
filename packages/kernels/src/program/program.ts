import type { Op } from '../ops/index.js'
import type { BufferSpec } from './buffer.js'
import type { KvCacheSpec } from './kv.js'

/** What a program expects of a weight. Its format (INT4 groups, BF16, …) is the bound weight's own business. */
export interface WeightSpec {
  /** [N, K] for a matrix, [n] for a vector. */
  readonly shape: readonly number[]
  /**
   * Names of the checkpoint's tensors whose rows, one after another, make this weight: q, k and v are one matrix, so
   * that a backend reads their common input once.
   */
  readonly parts: readonly string[]
}

/**
 * A flat list of ops over named buffers: what a backend compiles once and runs many times. Plain data: it can be
 * printed, rewritten and sent to another thread.
 */
export interface Program {
  readonly name: string
  readonly buffers: Readonly<Record<string, BufferSpec>>
  readonly weights: Readonly<Record<string, WeightSpec>>
  /** Small FP32 tables that come with the program: rotary frequencies, channel scales. */
  readonly constants: Readonly<Record<string, Float32Array>>
  /** The KV cache that `storeKv` and `attention` ops use; absent if there are none. */
  readonly kv?: KvCacheSpec
  readonly ops: readonly Op[]
}
