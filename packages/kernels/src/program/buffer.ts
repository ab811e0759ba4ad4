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
