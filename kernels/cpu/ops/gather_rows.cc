// out[i] = x[rows[i]]; see packages/kernels/src/ops/elementwise.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void gatherRows(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const View& rows = ctx.buffer("rows");
  const View& out = ctx.buffer("out");
  ctx.expect("out", rows.rows, x.columns);
  float* rooms = ctx.scratchF32(ctx.threads() * x.columns);
  ctx.parallelFor(rows.rows, [&](int64_t i, int worker) {
    const int32_t from = rows.i32()[i];
    if (from < 0 || from >= x.rows) {
      ctx.fail("output row %lld is token %d of a step of %lld tokens", static_cast<long long>(i), from,
               static_cast<long long>(x.rows));
    }
    writeRow(readRow(x, from, rooms + worker * x.columns), out, i);
  });
}

FIREQ_OP(gatherRows, gatherRows);

}  // namespace
}  // namespace fireq::FIREQ_ISA
