// Splits the fused projection and rotates queries and keys; see packages/kernels/src/ops/rope.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void rotateHeads(const float* x, int64_t heads, int64_t headDim, const float* cosines, const float* sines, float* out) {
  const int64_t half = headDim / 2;
  for (int64_t h = 0; h < heads; h++, x += headDim, out += headDim) {
    forVectors(
        half,
        [&](int64_t i) {
          const VF a = load<VF>(x + i), b = load<VF>(x + half + i);
          const VF cosine = load<VF>(cosines + i), sine = load<VF>(sines + i);
          store(out + i, a * cosine - b * sine);
          store(out + half + i, b * cosine + a * sine);
        },
        [&](int64_t i) {
          const float a = x[i], b = x[half + i];
          out[i] = a * cosines[i] - b * sines[i];
          out[half + i] = b * cosines[i] + a * sines[i];
        });
  }
}

void rope(OpContext& ctx) {
  const View& qkv = ctx.buffer("qkv");
  const View& positions = ctx.buffer("positions");
  const View& q = ctx.buffer("q");
  const View& k = ctx.buffer("k");
  const View& v = ctx.buffer("v");
  const auto heads = static_cast<int64_t>(ctx.number("numAttentionHeads"));
  const auto keyHeads = static_cast<int64_t>(ctx.number("numKeyValueHeads"));
  const auto headDim = static_cast<int64_t>(ctx.number("headDim"));
  const int64_t half = headDim / 2;
  const int64_t rows = positions.rows;
  ctx.expect("qkv", rows, (heads + 2 * keyHeads) * headDim);
  ctx.expect("q", rows, heads * headDim);
  ctx.expect("k", rows, keyHeads * headDim);
  ctx.expect("v", rows, keyHeads * headDim);
  const float* frequencies = ctx.constant("inverseFrequencies", half);
  const int64_t roomSize = headDim + 2 * qkv.columns;
  float* rooms = ctx.scratchF32(ctx.threads() * roomSize);
  ctx.parallelFor(rows, [&](int64_t t, int worker) {
    float* cosines = rooms + worker * roomSize;
    float* sines = cosines + half;
    float* room = sines + half;
    for (int64_t i = 0; i < half; i++) {
      const auto angle = static_cast<float>(static_cast<double>(positions.i32()[t]) * frequencies[i]);
      cosines[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
      sines[i] = static_cast<float>(std::sin(static_cast<double>(angle)));
    }
    const float* row = readRow(qkv, t, room);
    float* result = room + qkv.columns;
    float* queries = roomFor(q, t, result);
    rotateHeads(row, heads, headDim, cosines, sines, queries);
    writeRow(queries, q, t);
    float* keys = roomFor(k, t, result);
    rotateHeads(row + q.columns, keyHeads, headDim, cosines, sines, keys);
    writeRow(keys, k, t);
    writeRow(row + q.columns + k.columns, v, t);
  });
}

FIREQ_OP(rope, rope);

}  // namespace
}  // namespace fireq::FIREQ_ISA
