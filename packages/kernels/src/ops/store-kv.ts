import { defineOp } from '../program/op.js'
import { FLOAT, matrix, shaped, whole } from './checks.js'

/**
 * Writes each token's keys and values into its slot of the cache, in the cache's format (see `KvFormat` and
 * docs/numerics.md). k and v [T, Hkv·D], slots i32 [T] with slot = page · pageSize + offset.
 */
export const storeKv = defineOp({
  kind: 'storeKv',
  roles: { k: 'input', v: 'input', slots: 'input' },
  check(ctx, { layer }: { readonly layer: number }) {
    const { numLayers, numKeyValueHeads, headDim } = ctx.kv()
    whole(ctx, 'layer', layer, 0)
    if (layer >= numLayers) ctx.fail(`layer ${layer} is outside a cache of ${numLayers} layers`)
    const [rows] = matrix(ctx, 'k', FLOAT)
    shaped(ctx, 'k', FLOAT, [rows, numKeyValueHeads * headDim])
    shaped(ctx, 'v', FLOAT, [rows, numKeyValueHeads * headDim])
    shaped(ctx, 'slots', ['i32'], [rows])
  },
  checkFeeds(ctx) {
    const { pages, pageSize } = ctx.kv()
    ctx.fed('slots')?.forEach((slot, t) => {
      if (slot < 0 || slot >= pages * pageSize) {
        ctx.fail(`token ${t} goes to slot ${slot}, outside a cache of ${pages} pages of ${pageSize}`)
      }
    })
  },
  run(ctx, { layer }) {
    const kv = ctx.kv()
    const { headDim, numKeyValueHeads } = kv.spec
    ctx.i32('slots').forEach((slot, t) => {
      for (let head = 0; head < numKeyValueHeads; head++) {
        const at = (t * numKeyValueHeads + head) * headDim
        kv.write('key', layer, slot, head, ctx.f32('k').subarray(at, at + headDim))
        kv.write('value', layer, slot, head, ctx.f32('v').subarray(at, at + headDim))
      }
    })
  },
})
