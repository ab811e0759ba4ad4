import type { KvCache } from '../backend.js'
import { BackendError } from '../errors.js'
import type { KvCacheSpec } from '../program/kv.js'
import { attentionKernel } from './attention-info.js'
import { expect, expectWhole } from './checks.js'
import type { CudaDevice } from './device.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

// kernels/cuda/kv_layout.cuh
export const KV_HEAD_DIM = 128
export const KV_PAGE_TOKENS = 64
/** Of one key-value head, keys and values with their scales. */
const PAGE_BYTES = KV_PAGE_TOKENS * (KV_HEAD_DIM + 4)

/**
 * Keys and values in INT4 on a device, in pages of 64 tokens: per layer [pages, numKeyValueHeads, 8448 bytes], 132 bytes a token
 * and key-value head. headDim is 128; the format is symmetric with BF16 scales or asymmetric with E4M3 ones (`KvFormat` and
 * docs/numerics.md say what that is, kernels/cuda/kv_layout.cuh where it lies). Which sequence owns a page is the caller's affair.
 */
export class CudaKvCache implements KvCache {
  readonly spec: KvCacheSpec
  readonly pages: number
  readonly pageSize: number = KV_PAGE_TOKENS
  /** Of device memory. */
  readonly bytes: number
  readonly device: CudaDevice
  readonly #layers: readonly CudaBuffer[]

  private constructor(device: CudaDevice, spec: KvCacheSpec, pages: number, layers: readonly CudaBuffer[]) {
    this.device = device
    this.spec = spec
    this.pages = pages
    this.bytes = layers.reduce((sum, { bytes }) => sum + bytes, 0)
    this.#layers = layers
  }

  /** For work on `stream`; its content is undefined. Throws a BackendError for a format or head that the kernels don't take. */
  static create(
    device: CudaDevice,
    stream: CudaStream,
    spec: KvCacheSpec,
    { pages }: { readonly pages: number },
  ): CudaKvCache {
    const { numLayers, numKeyValueHeads, headDim, format } = spec
    const what = `KV cache of ${numLayers} layers, ${numKeyValueHeads} heads of ${headDim}, ${pages} pages`
    expectWhole(what, 'numLayers', numLayers, 1, 2 ** 16)
    expectWhole(what, 'numKeyValueHeads', numKeyValueHeads, 1, 2 ** 16 - 1)
    expect(headDim === KV_HEAD_DIM, what, `headDim ${KV_HEAD_DIM}`, headDim)
    expectWhole(what, 'pages', pages, 1, 2 ** 31 / KV_PAGE_TOKENS - 1) // a slot is an i32
    const isKnown = format.dtype === 'int4' && format.scale === (format.symmetric ? 'bf16' : 'e4m3')
    expect(isKnown, what, 'INT4, symmetric with BF16 scales or asymmetric with E4M3 ones', describeFormat(format))
    attentionKernel(device, `attention_store_${suffixOf(spec)}`)
    const layers: CudaBuffer[] = []
    try {
      for (let i = 0; i < numLayers; i++) {
        layers.push(stream.allocate(pages * numKeyValueHeads * PAGE_BYTES, `${what}: layer ${i}`))
      }
    } catch (error) {
      for (const layer of layers) layer.dispose()
      throw error
    }
    return new CudaKvCache(device, spec, pages, layers)
  }

  /** How names of kernels that read or write this cache end. */
  get suffix(): 'bf16' | 'asym' {
    return suffixOf(this.spec)
  }

  /** A layer's pages. */
  layer(index: number, what: string): CudaBuffer {
    const layer = this.#layers[index]
    if (layer !== undefined) return layer
    throw new BackendError(`${what}: expected a layer from 0 to ${this.#layers.length - 1} but received ${index}`)
  }

  dispose(): void {
    for (const layer of this.#layers) layer.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

function suffixOf({ format }: KvCacheSpec): 'bf16' | 'asym' {
  return format.dtype === 'int4' && format.symmetric ? 'bf16' : 'asym'
}

function describeFormat(format: KvCacheSpec['format']): string {
  if (format.dtype !== 'int4') return format.dtype
  return `INT4, ${format.symmetric ? 'symmetric' : 'asymmetric'} with ${format.scale} scales`
}
