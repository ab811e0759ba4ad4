export type {
  Backend,
  BackendName,
  Executable,
  Feeds,
  Handle,
  KvCache,
  LoadOptions,
  Results,
  RunOptions,
  WeightSet,
  WeightSource,
} from './backend.js'
export { type BackendStatus, backendReport, type CreateBackendOptions, createBackend } from './create-backend.js'
export type { CudaMemory, GemmChoice, LaunchShape } from './cuda/addon-types.js'
export { type AttendDecode, type AttendPrefill, attendDecode, attendPrefill } from './cuda/attention.js'
export { chooseGemm } from './cuda/choose-gemm.js'
export { DecodeBatch, type DecodeBatchOptions } from './cuda/decode-batch.js'
export { CudaDevice, type OpenOptions } from './cuda/device.js'
export { type Fp8Weight, quantizeFp8Weight } from './cuda/fp8-weight.js'
export { CudaKvCache, type CudaKvCacheSpec, type CudaKvFormat } from './cuda/kv-cache.js'
export type { KvSequence } from './cuda/kv-sequences.js'
export { CudaLinear, type LinearInputs, type PackOptions } from './cuda/linear.js'
export type { Accumulate, LinearWeight } from './cuda/linear-kernel.js'
export { PrefillBatch, type PrefillBatchOptions, type PrefillSequence } from './cuda/prefill-batch.js'
export { type QuantizeTokens, quantizeTokens, type RmsNormQuantize, rmsNormQuantize } from './cuda/quantize.js'
export { readBandwidth } from './cuda/read-bandwidth.js'
export { CudaBuffer, CudaEvent, CudaGraph, CudaKernel } from './cuda/resources.js'
export { type RopeStoreKv, ropeStoreKv } from './cuda/rope-store-kv.js'
export { type CudaDeviceInfo, type CudaStatus, cudaStatus } from './cuda/status.js'
export { CudaStream } from './cuda/stream.js'
export type { InstructionSet } from './env.js'
export { BackendError, ProgramError } from './errors.js'
export { CpuBackend, type CpuOptions, type MachinePeak } from './native/cpu-backend.js'
export type { Op, OpKind, OpOf } from './ops/index.js'
export { ops } from './ops/index.js'
export type { BufferDType, BufferSpec, Dim, SymbolicDim } from './program/buffer.js'
export { ProgramBuilder } from './program/builder.js'
export { checkProgram } from './program/check.js'
export { type KvCacheSpec, kvBytesPerToken, kvGroupSize } from './program/kv.js'
export { printProgram } from './program/print.js'
export type { Program, WeightSpec } from './program/program.js'
export {
  applyRewrites,
  fuseNormQuantize,
  fuseResidual,
  fuseSiluMulQuantize,
  type Rewrite,
} from './program/rewrites.js'
export { ReferenceBackend } from './reference/backend.js'
export { roundKvGroup } from './reference/kv-format.js'
