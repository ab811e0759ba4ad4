// Writes each token's keys and values into its slot of the cache; see packages/kernels/src/ops/store-kv.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void storeKv(OpContext& ctx) {
  const View& k = ctx.buffer("k");
  const View& v = ctx.buffer("v");
  const View& slots = ctx.buffer("slots");
  KvCache& kv = ctx.kv();
  const KvShape& shape = kv.shape();
  const auto layer = static_cast<int64_t>(ctx.number("layer"));
  if (layer < 0 || layer >= shape.layers) ctx.fail("the layer is outside the cache");
  ctx.expect("k", slots.rows, shape.heads * shape.headDim);
  ctx.expect("v", slots.rows, shape.heads * shape.headDim);
  float* rooms = ctx.scratchF32(ctx.threads() * 2 * k.columns);
  ctx.parallelFor(slots.rows, [&](int64_t t, int worker) {
    const int64_t slot = slots.i32()[t];
    if (slot < 0 || slot >= shape.pages * shape.pageSize) {
      ctx.fail("token %lld goes to slot %lld, outside a cache of %lld pages of %lld", static_cast<long long>(t),
               static_cast<long long>(slot), static_cast<long long>(shape.pages),
               static_cast<long long>(shape.pageSize));
    }
    float* room = rooms + worker * 2 * k.columns;
    const float* keys = readRow(k, t, room);
    const float* values = readRow(v, t, room + k.columns);
    for (int64_t head = 0; head < shape.heads; head++) {
      kv.store(layer, slot, head, keys + head * shape.headDim, values + head * shape.headDim);
    }
  });
}

FIREQ_OP(storeKv, storeKv);

}  // namespace
}  // namespace fireq::FIREQ_ISA
