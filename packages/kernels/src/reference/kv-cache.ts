import type { KvCache } from '../backend.js'
import { BackendError } from '../errors.js'
import { type KvCacheSpec, kvGroupSize } from '../program/kv.js'
import type { ReferenceKv } from '../program/op.js'
import { roundKvGroup } from './kv-format.js'

/** Keys and values as the cache's format gives them back, kept in FP32: for reading, not for saving memory. */
export class KvCacheStorage implements KvCache, ReferenceKv {
  readonly spec: KvCacheSpec
  readonly pages: number
  readonly pageSize: number
  #values: { key: Float32Array; value: Float32Array } | undefined

  constructor(spec: KvCacheSpec, { pages, pageSize }: { pages: number; pageSize: number }) {
    const elements = spec.numLayers * pages * pageSize * spec.numKeyValueHeads * spec.headDim
    this.spec = spec
    this.pages = pages
    this.pageSize = pageSize
    this.#values = { key: new Float32Array(elements), value: new Float32Array(elements) }
  }

  get bytes(): number {
    return this.#values === undefined ? 0 : 2 * this.#values.key.byteLength
  }

  write(side: 'key' | 'value', layer: number, slot: number, head: number, x: Float32Array): void {
    const target = this.#vector(side, layer, slot, head)
    const group = kvGroupSize(this.spec)
    for (let i = 0; i < x.length; i += group) {
      roundKvGroup(x.subarray(i, i + group), this.spec.format, target.subarray(i, i + group))
    }
  }

  read(side: 'key' | 'value', layer: number, slot: number, head: number, out: Float32Array): void {
    out.set(this.#vector(side, layer, slot, head))
  }

  dispose(): void {
    this.#values = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  #vector(side: 'key' | 'value', layer: number, slot: number, head: number): Float32Array {
    if (this.#values === undefined) throw new BackendError('The KV cache was disposed')
    const { numKeyValueHeads, headDim } = this.spec
    const at = ((layer * this.pages * this.pageSize + slot) * numKeyValueHeads + head) * headDim
    return this.#values[side].subarray(at, at + headDim)
  }
}
