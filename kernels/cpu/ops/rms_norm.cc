// rmsNorm and rmsNormQuantize; see packages/kernels/src/ops/rms-norm.ts and fused.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void rmsNorm(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const View& out = ctx.buffer("out");
  ctx.expect("out", x.rows, x.columns);
  const float* weight = ctx.vectorWeight("weight", x.columns);
  const auto eps = static_cast<float>(ctx.number("eps"));
  float* rooms = ctx.scratchF32(ctx.threads() * 2 * x.columns);
  ctx.parallelFor(x.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * 2 * x.columns;
    float* row = roomFor(out, t, room + x.columns);
    normalizeRow(readRow(x, t, room), weight, x.columns, eps, row);
    writeRow(row, out, t);
  });
}

void rmsNormQuantize(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const View& out = ctx.buffer("out");
  float* scale = ctx.buffer("scale").f32();
  ctx.expect("out", x.rows, x.columns);
  ctx.expect("scale", x.rows, 1);
  const float* weight = ctx.vectorWeight("weight", x.columns);
  const auto eps = static_cast<float>(ctx.number("eps"));
  const bool bf16 = ctx.textIs("intermediate", "bf16");
  float* rooms = ctx.scratchF32(ctx.threads() * 2 * x.columns);
  ctx.parallelFor(x.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * 2 * x.columns;
    float* row = room + x.columns;
    normalizeRow(readRow(x, t, room), weight, x.columns, eps, row);
    if (bf16) roundRowToBf16(row, x.columns);
    scale[t] = quantizeGroup(row, x.columns, out.e4m3() + t * x.columns);
  });
}

FIREQ_OP(rmsNorm, rmsNorm);
FIREQ_OP(rmsNormQuantize, rmsNormQuantize);

}  // namespace
}  // namespace fireq::FIREQ_ISA
