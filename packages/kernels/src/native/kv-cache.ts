import type { KvCache } from '../backend.js'
import { BackendError } from '../errors.js'
import type { KvCacheSpec } from '../program/kv.js'
import type { KvHandle, NativeAddon } from './addon-types.js'

/** Pages of keys and values in native memory, packed for real: an INT4 cache takes 4 bits a channel. */
export class NativeKvCache implements KvCache {
  readonly spec: KvCacheSpec
  readonly pages: number
  readonly pageSize: number
  readonly #addon: NativeAddon
  #handle: KvHandle | undefined

  constructor(addon: NativeAddon, spec: KvCacheSpec, { pages, pageSize }: { pages: number; pageSize: number }) {
    const { dtype, ...format } = spec.format
    this.spec = spec
    this.pages = pages
    this.pageSize = pageSize
    this.#addon = addon
    this.#handle = addon.createKvCache({
      layers: spec.numLayers,
      heads: spec.numKeyValueHeads,
      headDim: spec.headDim,
      pages,
      pageSize,
      type: dtype,
      ...format,
    })
  }

  get bytes(): number {
    return this.#handle === undefined ? 0 : this.#addon.bytesOf(this.#handle)
  }

  get handle(): KvHandle {
    if (this.#handle === undefined) throw new BackendError('The KV cache was disposed')
    return this.#handle
  }

  dispose(): void {
    if (this.#handle !== undefined) this.#addon.release(this.#handle)
    this.#handle = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
