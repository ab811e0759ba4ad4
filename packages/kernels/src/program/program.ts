import type { Op } from '../ops/index.js'
import type { KvCacheSpec } from './kv.js'

/**
 * A size known only when a program runs. `tokens` counts the tokens of all sequences of a step, laid one after another;
 * `sequences` the sequences; `outputs` the rows whose logits are wanted; `pages` the columns of the page table.
 */
export type SymbolicDim = 'tokens' | 'sequences' | 'outputs' | 'pages'
export type Dim = number | SymbolicDim

/** Types a buffer may have. An op computes in FP32 from stored values and rounds once, to its output buffer's type. */
export type BufferDType = 'f32' | 'bf16' | 'e4m3' | 'i32'

export interface BufferSpec {
  readonly dtype: BufferDType
  readonly shape: readonly Dim[]
  /** `input` is fed by the caller, `output` returned to it, `scratch` lives only inside a run. */
  readonly role: 'input' | 'output' | 'scratch'
}

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
