// out = a + b; see packages/kernels/src/ops/elementwise.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void add(OpContext& ctx) {
  const View& a = ctx.buffer("a");
  const View& b = ctx.buffer("b");
  const View& out = ctx.buffer("out");
  ctx.expect("b", a.rows, a.columns);
  ctx.expect("out", a.rows, a.columns);
  float* rooms = ctx.scratchF32(ctx.threads() * 3 * a.columns);
  ctx.parallelFor(a.rows, [&](int64_t t, int worker) {
    float* room = rooms + worker * 3 * a.columns;
    const float* x = readRow(a, t, room);
    const float* y = readRow(b, t, room + a.columns);
    float* sum = roomFor(out, t, room + 2 * a.columns);
    for (int64_t i = 0; i < a.columns; i++) sum[i] = x[i] + y[i];
    writeRow(sum, out, t);
  });
}

FIREQ_OP(add, add);

}  // namespace
}  // namespace fireq::FIREQ_ISA
