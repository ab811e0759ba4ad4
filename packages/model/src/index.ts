export { KvPoolFullError, ModelError } from './errors.js'
export {
  type Comparison,
  type EvaluateOptions,
  type Evaluation,
  evaluate,
  klDivergence,
  perplexity,
  type ScoredModel,
} from './evaluation/evaluate.js'
export { klOfLogits, logSumExp } from './evaluation/log-softmax.js'
export { tokenWindows } from './evaluation/windows.js'
export { type ModelFamily, modelFamily } from './families.js'
export type { FinishReason, GenerateOptions, SamplingOptions } from './generation/options.js'
export { seededUniform } from './generation/random.js'
export { KvPool, type KvSequence } from './kv/pool.js'
export { assembleStep, feedsOf, type Step, type StepEntry } from './kv/step.js'
export { LanguageModel, type LoadModelOptions, type LoadSource } from './language-model.js'
export { type BuildOptions, buildDecoder, buildLlama } from './llama/build.js'
export { type LayerLinears, type LinearSpec, llamaLinears } from './llama/linears.js'
export { type LlamaPlan, planFor } from './llama/plan.js'
export { ropeInverseFrequencies } from './llama/rope-frequencies.js'
export { type TapPoint, tapName, tapPoints } from './llama/taps.js'
export type { LogitsChunk, LogitsOptions } from './logits.js'
export type { SampleEntry, StepOptions, SteppingModel } from './stepping.js'
export * from './tokenizer/index.js'
export { loadWeights, type TensorSource } from './weights/load.js'
