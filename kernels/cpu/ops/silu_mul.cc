// siluMul and siluMulQuantize; see packages/kernels/src/ops/elementwise.ts and fused.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void siluMul(OpContext& ctx) {
  const View& x = ctx.buffer("gateUp");
  const View& out = ctx.buffer("out");
  ctx.expect("gateUp", out.rows, 2 * out.columns);
  float* rooms = ctx.scratchF32(ctx.threads() * (x.columns + out.columns));
  ctx.parallelFor(x.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * (x.columns + out.columns);
    float* row = roomFor(out, t, room + x.columns);
    siluMulRow(readRow(x, t, room), out.columns, row);
    writeRow(row, out, t);
  });
}

void siluMulQuantize(OpContext& ctx) {
  const View& x = ctx.buffer("gateUp");
  const View& out = ctx.buffer("out");
  float* scale = ctx.buffer("scale").f32();
  ctx.expect("gateUp", out.rows, 2 * out.columns);
  ctx.expect("scale", out.rows, 1);
  const bool bf16 = ctx.textIs("intermediate", "bf16");
  float* rooms = ctx.scratchF32(ctx.threads() * (x.columns + out.columns));
  ctx.parallelFor(x.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * (x.columns + out.columns);
    float* row = room + x.columns;
    siluMulRow(readRow(x, t, room), out.columns, row);
    if (bf16) roundRowToBf16(row, out.columns);
    scale[t] = quantizeGroup(row, out.columns, out.e4m3() + t * out.columns);
  });
}

FIREQ_OP(siluMul, siluMul);
FIREQ_OP(siluMulQuantize, siluMulQuantize);

}  // namespace
}  // namespace fireq::FIREQ_ISA
