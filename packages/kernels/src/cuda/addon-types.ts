/**
 * The CUDA part of the native addon's surface (kernels/binding/cuda_functions.cc). Functions throw plain Errors; handles
 * are opaque objects that `cudaRelease` empties. `what` names the caller's op and shapes in errors. Offsets and sizes are
 * bytes. Whatever takes a stream only enqueues work, unless it returns a promise.
 */
export interface CudaAddon {
  /** The most that one upload or download takes. */
  readonly cudaChunkBytes: number
  /** Opens a driver library (libcuda.so.1) and looks around; never throws. */
  cudaStatus(library: string): NativeCudaStatus
  /** Why this build has no kernels, or empty. */
  readonly cudaWhyNoKernels: string
  /** The kernels in this build. */
  cudaKernels(): { readonly file: string; readonly name: string; readonly registers: number }[]

  cudaOpenDevice(library: string, ordinal: number): DeviceHandle
  cudaDescribe(device: DeviceHandle): NativeCudaDevice
  cudaMemory(device: DeviceHandle): CudaMemory
  cudaTrim(device: DeviceHandle): number
  cudaKernel(device: DeviceHandle, name: string): KernelHandle
  /** The bytes of a constant in the kernel's file. */
  cudaConstant(kernel: KernelHandle, name: string): Uint8Array
  /** kernels/cuda/heuristics.hpp: which kernel multiplies an [M, K] activation by an [N, K] weight. M may be 0. */
  cudaChooseGemm(m: number, n: number, k: number, multiprocessors: number): GemmChoice
  /** kernels/cuda/heuristics_w4a16.hpp: the same for BF16 activations. */
  cudaChooseW4a16(m: number, n: number, k: number, multiprocessors: number): GemmChoice
  /** kernels/cuda/choose_plain.hpp: the same of the plain kernels of one kind. */
  cudaChoosePlain(kind: PlainKind, m: number, n: number, k: number, multiprocessors: number): GemmChoice
  cudaStream(device: DeviceHandle): StreamHandle

  cudaAllocate(stream: StreamHandle, bytes: number, what: string): BufferHandle
  cudaFill(stream: StreamHandle, to: BufferHandle, offset: number, bytes: number, value: number, what: string): void
  cudaCopy(
    stream: StreamHandle,
    from: BufferHandle,
    fromOffset: number,
    to: BufferHandle,
    toOffset: number,
    bytes: number,
    what: string,
  ): void
  /** Copies `from` before it returns. */
  cudaUpload(stream: StreamHandle, from: Uint8Array, to: BufferHandle, offset: number, what: string): void
  /**
   * Packs rows of an INT4 weight on all of the machine's threads and sends the blocks to `to`. Returns when they are packed:
   * what the format can't hold, 1 the code −8, 2 a scale that isn't BF16; then nothing was sent.
   */
  cudaUploadInt4(
    stream: StreamHandle,
    slab: NativeInt4Slab,
    format: NativeInt4Format,
    to: BufferHandle,
    offset: number,
    what: string,
  ): number
  cudaDownload(stream: StreamHandle, from: BufferHandle, offset: number, into: Uint8Array, what: string): Promise<void>
  cudaLaunch(
    stream: StreamHandle,
    kernel: KernelHandle,
    shape: Required<LaunchShape>,
    args: readonly NativeArgument[],
    what: string,
  ): void
  cudaSynchronize(stream: StreamHandle): Promise<void>

  cudaRecord(stream: StreamHandle): EventHandle
  cudaWaitFor(stream: StreamHandle, event: EventHandle): void
  cudaElapsed(start: EventHandle, end: EventHandle): number

  cudaBeginCapture(stream: StreamHandle): void
  cudaEndCapture(stream: StreamHandle): GraphHandle
  cudaReplay(stream: StreamHandle, graph: GraphHandle, what: string): void

  cudaRelease(handle: CudaHandle): void
}

declare const kind: unique symbol
export type DeviceHandle = { readonly [kind]: 'cuda device' }
export type StreamHandle = { readonly [kind]: 'cuda stream' }
export type EventHandle = { readonly [kind]: 'cuda event' }
export type BufferHandle = { readonly [kind]: 'cuda buffer' }
export type KernelHandle = { readonly [kind]: 'cuda kernel' }
export type GraphHandle = { readonly [kind]: 'cuda graph' }
export type CudaHandle = DeviceHandle | StreamHandle | EventHandle | BufferHandle | KernelHandle | GraphHandle

/** A part of a buffer; as an argument its address. */
export interface NativePart {
  readonly buffer: BufferHandle
  readonly offset: number
  readonly bytes: number
}

/** A row-major tensor as the copy engine takes it, 128 bytes as an argument. Innermost dimension first. */
export interface NativeTensorMap {
  readonly tensor: NativePart
  readonly type: 'u8' | 'bf16'
  readonly sizes: readonly number[]
  /** Bytes, of all dimensions but the innermost. */
  readonly strides: readonly number[]
  readonly box: readonly number[]
  readonly swizzle: 64 | 128
}

/** An argument's bytes, an address, a tensor map, or a struct of those without gaps, padded if it begins with a map. */
export type NativeArgument = Uint8Array | NativePart | NativeTensorMap | readonly NativeArgument[]

/** Consecutive rows of an INT4 tensor; with two parts, gate's and up's, they are interleaved by eights. */
export interface NativeInt4Slab {
  readonly parts: readonly {
    readonly codes: Uint8Array
    readonly scales: Float32Array | Uint16Array | Uint8Array
    readonly channelScale: Float32Array | undefined
  }[]
  readonly scaleType: 'f32' | 'bf16' | 'e4m3'
  /** Of all parts. */
  readonly rows: number
  readonly columns: number
  /** 32, 64 or 128. */
  readonly groupSize: number
  /** The slab's place in the packed weight, for errors. */
  readonly firstRow: number
}

/** How INT4 is packed (kernels/cuda/runtime/int4_pack.h). */
export interface NativeInt4Format {
  /** Codes −8…7, else −7…7. */
  readonly full: boolean
  /** 2: BF16, 4: FP32. */
  readonly scaleBytes: 2 | 4
  /** In the order for BF16 activations, else for FP8 ones. Goes with `full`. */
  readonly forBf16: boolean
}

/** The kinds of plain kernels (kernels/cuda/gemm_exact.cu, gemm_dense.cu): what their names begin with. */
export type PlainKind =
  | 'i4_exact_g32'
  | 'i4_exact_g64'
  | 'i4_exact_g128'
  | 'i4_exact_lookup'
  | 'e4m3_dense'
  | 'e4m3_precise'
  | 'bf16_dense'

/** A kernel is `i4_<family>_f<features>_t<tokens>_…`, with BF16 activations `w4a16_<family>…`, a plain one `<kind>_f<features>_t<tokens>…`. */
export interface GemmChoice {
  readonly family: 'none' | 'small' | 'large' | 'plain'
  /** Output features a block. */
  readonly features: number
  /** Tokens a block. */
  readonly tokens: number
  /** Small and plain: parts of K, a block each. */
  readonly split: number
  /** Large and plain: token tiles that a sweep over the features keeps in the L2. */
  readonly sweep: number
  /** Large: pairs of blocks that share the work. */
  readonly clusters: number
  /** Large: tiles that are cut among them; the others are taken whole. */
  readonly cut: number
}

export interface NativeCudaDevice {
  readonly ordinal: number
  readonly name: string
  /** "9.0" */
  readonly computeCapability: string
  readonly multiprocessors: number
  readonly totalBytes: number
  /** Why it can't be used, or empty. */
  readonly problem: string
}

export interface NativeCudaStatus {
  /** The first thing that stands in the way, or empty. */
  readonly problem: string
  /** The CUDA version that the driver supports ("13.0"), the driver's own, and the toolkit of the kernels; or empty. */
  readonly driverVersion: string
  readonly driverRelease: string
  readonly toolkitVersion: string
  readonly devices: readonly NativeCudaDevice[]
}

/** Device memory in bytes, of one open device. */
export interface CudaMemory {
  /** In buffers that are in use. */
  readonly allocated: number
  /** Taken from the driver: in use or cached. */
  readonly reserved: number
  readonly peakAllocated: number
  readonly peakReserved: number
  /** Buffers in use. */
  readonly blocks: number
  /** So far, and those of them that the cache could not serve. */
  readonly allocations: number
  readonly driverAllocations: number
  /** Times that memory ran out and the cache was given back. */
  readonly retries: number
}

export interface LaunchShape {
  readonly grid: readonly [x: number, y: number, z: number]
  readonly block: readonly [x: number, y: number, z: number]
  /** Blocks a cluster, along x. Default: 1. */
  readonly cluster?: number
  /** Dynamic shared memory a block. Default: 0. */
  readonly sharedBytes?: number
  /** May start before the work before it ends; the kernel itself waits for that. Default: false. */
  readonly dependent?: boolean
}
