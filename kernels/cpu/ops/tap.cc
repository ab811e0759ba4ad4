// Copies x to an FP32 output; see packages/kernels/src/ops/elementwise.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void tap(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const View& out = ctx.buffer("out");
  ctx.expect("out", x.rows, x.columns);
  ctx.parallelFor(x.rows, [&](int64_t t, int) {
    toFloats(x.dtype, rowOf(x, t), x.columns, reinterpret_cast<float*>(rowOf(out, t)));
  });
}

FIREQ_OP(tap, tap);

}  // namespace
}  // namespace fireq::FIREQ_ISA
