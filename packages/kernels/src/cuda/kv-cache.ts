import type { KvFormat } from '@fireq/formats'
import type { Handle } from '../backend.js'
import { BackendError } from '../errors.js'
import type { KvCacheSpec } from '../program/kv.js'
import { type AttentionKernel, attentionKernel } from './attention-info.js'
import { expect, expectWhole } from './checks.js'
import type { CudaDevice } from './device.js'
import type { CudaBuffer } from './resources.js'
import type { CudaStream } from './stream.js'

export const KV_PAGE_TOKENS = 64

/** `KvFormat`, and E4M3 with a BF16 scale a token and head, which only this cache has: σ = BF16(max|x| / 448), E4M3(x / σ). */
export type CudaKvFormat = KvFormat | { readonly dtype: 'e4m3' }

export interface CudaKvCacheSpec extends Omit<KvCacheSpec, 'format'> {
  readonly format: CudaKvFormat
}

type FormatName = 'sym' | 'asym' | 'e4m3' | 'bf16'

/** Bits of a code, and bytes of a token and head's two scales (kernels/cuda/kv_layout.cuh). */
const SIZES: Readonly<Record<FormatName, { readonly codeBits: number; readonly scaleBytes: number }>> = {
  sym: { codeBits: 4, scaleBytes: 4 },
  asym: { codeBits: 4, scaleBytes: 4 },
  e4m3: { codeBits: 8, scaleBytes: 4 },
  bf16: { codeBits: 16, scaleBytes: 0 },
}

/**
 * Keys and values on a device, in pages of 64 tokens: per layer [pages, numKeyValueHeads, pageBytes], keys, values and scales
 * together. headDim is 64 or 128. The format is INT4, symmetric with BF16 scales or asymmetric with E4M3 ones (132 bytes a token and
 * key-value head of 128), or for comparison E4M3 with BF16 scales (260), or BF16 (512). kernels/cuda/kv_layout.cuh says where it
 * lies. Which sequence owns a page is the caller's affair.
 */
export class CudaKvCache implements Handle {
  readonly spec: CudaKvCacheSpec
  readonly pages: number
  readonly pageSize: number = KV_PAGE_TOKENS
  /** Of device memory. */
  readonly bytes: number
  readonly device: CudaDevice
  readonly #layers: readonly CudaBuffer[]

  private constructor(device: CudaDevice, spec: CudaKvCacheSpec, pages: number, layers: readonly CudaBuffer[]) {
    this.device = device
    this.spec = spec
    this.pages = pages
    this.bytes = layers.reduce((sum, { bytes }) => sum + bytes, 0)
    this.#layers = layers
  }

  /** For work on `stream`; its content is undefined. Throws a BackendError for a format or head that there are no kernels for. */
  static create(
    device: CudaDevice,
    stream: CudaStream,
    spec: CudaKvCacheSpec,
    { pages }: { readonly pages: number },
  ): CudaKvCache {
    const { numLayers, numKeyValueHeads, headDim } = spec
    const what = `KV cache of ${numLayers} layers, ${numKeyValueHeads} heads of ${headDim}, ${pages} pages`
    expectWhole(what, 'numLayers', numLayers, 1, 2 ** 16)
    expectWhole(what, 'numKeyValueHeads', numKeyValueHeads, 1, 2 ** 16 - 1)
    expect(headDim === 64 || headDim === 128, what, 'headDim 64 or 128', headDim)
    expectWhole(what, 'pages', pages, 1, 2 ** 31 / KV_PAGE_TOKENS - 1) // a slot is an i32
    const suffix = suffixOf(spec, what)
    // Loaded now, so that a capture can launch them.
    for (const family of ['attention_store', 'attention_decode_q8']) {
      const name = `${family}_${suffix}`
      if (device.hasKernel(name)) attentionKernel(device, name)
    }
    const layers: CudaBuffer[] = []
    try {
      for (let i = 0; i < numLayers; i++) {
        layers.push(stream.allocate(pages * numKeyValueHeads * pageBytes(spec, what), `${what}: layer ${i}`))
      }
    } catch (error) {
      for (const layer of layers) layer.dispose()
      throw error
    }
    return new CudaKvCache(device, spec, pages, layers)
  }

  /** The kernel of a family (`attention_store`, …) for this cache; a BackendError if there is none. */
  kernel(family: string, what: string): AttentionKernel {
    const name = `${family}_${suffixOf(this.spec, what)}`
    const { headDim, format } = this.spec
    expect(
      this.device.hasKernel(name),
      what,
      `a cache that ${family} takes`,
      `${describe(format)}, heads of ${headDim}`,
    )
    return attentionKernel(this.device, name)
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

/** Bytes of one key-value head's page, keys and values with their scales. */
function pageBytes(spec: CudaKvCacheSpec, what: string): number {
  const { codeBits, scaleBytes } = SIZES[nameOf(spec.format, what)]
  return KV_PAGE_TOKENS * ((2 * spec.headDim * codeBits) / 8 + scaleBytes)
}

/** How names of kernels that read or write such a cache end. */
function suffixOf({ format, headDim }: CudaKvCacheSpec, what: string): string {
  return `${nameOf(format, what)}_d${headDim}`
}

function nameOf(format: CudaKvFormat, what: string): FormatName {
  if (format.dtype === 'bf16' || format.dtype === 'e4m3') return format.dtype
  const isKnown = format.dtype === 'int4' && format.scale === (format.symmetric ? 'bf16' : 'e4m3')
  expect(isKnown, what, 'INT4, symmetric with BF16 scales or asymmetric with E4M3 ones, E4M3 or BF16', describe(format))
  return format.dtype === 'int4' && format.symmetric ? 'sym' : 'asym'
}

function describe(format: CudaKvFormat): string {
  if (format.dtype !== 'int4') return format.dtype.toUpperCase()
  return `INT4, ${format.symmetric ? 'symmetric' : 'asymmetric'} with ${format.scale.toUpperCase()} scales`
}
