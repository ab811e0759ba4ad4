// Keys times keyScale, queries divided by it; see packages/kernels/src/ops/scale-keys.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void scaleKeys(OpContext& ctx) {
  const View& q = ctx.buffer("q");
  const View& k = ctx.buffer("k");
  const View& qOut = ctx.buffer("qOut");
  const View& kOut = ctx.buffer("kOut");
  const auto headDim = static_cast<int64_t>(ctx.number("headDim"));
  if (headDim < 1 || k.columns % headDim != 0 || q.columns % k.columns != 0) ctx.fail("heads don't fit q and k");
  ctx.expect("k", q.rows, k.columns);
  ctx.expect("qOut", q.rows, q.columns);
  ctx.expect("kOut", q.rows, k.columns);
  const float* keyScale = ctx.constant("keyScale", k.columns);
  const int64_t headsPerGroup = q.columns / k.columns;
  const int64_t roomSize = 2 * q.columns;
  float* rooms = ctx.scratchF32(ctx.threads() * roomSize);
  ctx.parallelFor(q.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * roomSize;
    const float* keys = readRow(k, t, room);
    float* scaledKeys = roomFor(kOut, t, room + q.columns);
    for (int64_t i = 0; i < k.columns; i++) scaledKeys[i] = keys[i] * keyScale[i];
    writeRow(scaledKeys, kOut, t);
    const float* queries = readRow(q, t, room);
    float* scaledQueries = roomFor(qOut, t, room + q.columns);
    for (int64_t head = 0; head < q.columns / headDim; head++) {
      const float* scale = keyScale + head / headsPerGroup * headDim;
      for (int64_t i = head * headDim; i < (head + 1) * headDim; i++) scaledQueries[i] = queries[i] / *scale++;
    }
    writeRow(scaledQueries, qOut, t);
  });
}

FIREQ_OP(scaleKeys, scaleKeys);

}  // namespace
}  // namespace fireq::FIREQ_ISA
