import type { DenseTensor, Int4Tensor, Tensor } from '@fireq/formats'
import type { LoadOptions, WeightSet, WeightSource } from '../backend.js'
import { BackendError } from '../errors.js'
import type { WeightSpec } from '../program/program.js'
import { fetchWeight } from '../reference/weights.js'
import type { BackendHandle, NativeAddon, WeightHandle } from './addon-types.js'

/** Rows of a packed tile. */
const TILE = 16
/** What one native call copies at the most, so that packing neither blocks the event loop nor doubles memory. */
const SLICE_BYTES = 8 << 20

/** Weights packed for the CPU kernels. */
export class NativeWeights implements WeightSet {
  readonly bytes: number
  readonly #addon: NativeAddon
  #handles: Map<string, WeightHandle> | undefined

  constructor(addon: NativeAddon, handles: Map<string, WeightHandle>) {
    this.#addon = addon
    this.#handles = handles
    this.bytes = [...handles.values()].reduce((sum, handle) => sum + addon.bytesOf(handle), 0)
  }

  has(name: string): boolean {
    return this.#handles?.has(name) ?? false
  }

  get(name: string): WeightHandle {
    if (this.#handles === undefined) {
      throw new BackendError(`Weight '${name}' is used after its weight set was disposed`)
    }
    const handle = this.#handles.get(name)
    if (handle === undefined) throw new BackendError(`Weight '${name}' is not in this weight set`)
    return handle
  }

  dispose(): void {
    for (const handle of this.#handles?.values() ?? []) this.#addon.release(handle)
    this.#handles = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

export async function loadNativeWeights(
  addon: NativeAddon,
  backend: BackendHandle,
  specs: Readonly<Record<string, WeightSpec>>,
  source: WeightSource,
  { signal, onProgress }: LoadOptions,
): Promise<NativeWeights> {
  const handles = new Map<string, WeightHandle>()
  const total = Object.keys(specs).length
  let bytes = 0
  try {
    for (const [name, spec] of Object.entries(specs)) {
      signal?.throwIfAborted()
      const tensor = await fetchWeight(name, spec, source)
      const handle = await pack(addon, backend, name, tensor, signal)
      handles.set(name, handle)
      bytes += addon.bytesOf(handle)
      onProgress?.({ weight: name, done: handles.size, total, bytes })
    }
    return new NativeWeights(addon, handles)
  } catch (error) {
    for (const handle of handles.values()) addon.release(handle)
    throw error
  }
}

async function pack(
  addon: NativeAddon,
  backend: BackendHandle,
  name: string,
  tensor: Tensor,
  signal: AbortSignal | undefined,
): Promise<WeightHandle> {
  try {
    if (tensor.kind === 'int4') return await packInt4(addon, backend, tensor, signal)
    if (tensor.shape.length === 1) return addon.createVector(tensor.dtype, tensor.data)
    if (tensor.shape.length === 2) return await packDense(addon, backend, tensor, signal)
  } catch (error) {
    signal?.throwIfAborted()
    const message = error instanceof Error ? error.message : String(error)
    throw new BackendError(`Weight '${name}' of shape [${tensor.shape.join(', ')}]: ${message}`, { cause: error })
  }
  throw new BackendError(`Expected weight '${name}' of rank 1 or 2 but received shape [${tensor.shape.join(', ')}]`)
}

async function packDense(
  addon: NativeAddon,
  backend: BackendHandle,
  tensor: DenseTensor,
  signal: AbortSignal | undefined,
): Promise<WeightHandle> {
  const [rows, columns] = tensor.shape as [number, number]
  const handle = addon.createMatrix({ format: tensor.dtype, rows, columns, groupSize: columns })
  await forSlices(addon, handle, rows, columns * tensor.data.BYTES_PER_ELEMENT, signal, (from, to) =>
    addon.packRows(backend, handle, from, tensor.data.subarray(from * columns, to * columns)),
  )
  return handle
}

async function packInt4(
  addon: NativeAddon,
  backend: BackendHandle,
  tensor: Int4Tensor,
  signal: AbortSignal | undefined,
): Promise<WeightHandle> {
  const { groupSize, codes, groupScale, channelScale, lookupRounding } = tensor
  const [rows, columns] = tensor.shape
  const groups = columns / groupSize
  const handle = addon.createMatrix({
    format: lookupRounding ? 'int4-lookup' : 'int4',
    rows,
    columns,
    groupSize,
    ...(channelScale && { channelScale }),
  })
  await forSlices(addon, handle, rows, columns / 2, signal, (from, to) =>
    addon.packRows(
      backend,
      handle,
      from,
      codes.subarray((from * columns) / 2, Math.ceil((to * columns) / 2)),
      groupScale.data.subarray(from * groups, to * groups),
      groupScale.dtype,
      groupSize,
    ),
  )
  return handle
}

/** Calls `packSlice` for whole tiles of rows, a bounded number of bytes at a time; releases the handle on failure. */
async function forSlices(
  addon: NativeAddon,
  handle: WeightHandle,
  rows: number,
  rowBytes: number,
  signal: AbortSignal | undefined,
  packSlice: (from: number, to: number) => Promise<void>,
): Promise<void> {
  const step = Math.max(1, Math.floor(SLICE_BYTES / rowBytes / TILE)) * TILE
  try {
    for (let from = 0; from < rows; from += step) {
      signal?.throwIfAborted()
      await packSlice(from, Math.min(rows, from + step))
    }
  } catch (error) {
    addon.release(handle)
    throw error
  }
}
