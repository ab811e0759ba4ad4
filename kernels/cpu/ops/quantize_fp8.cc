// FP8 with one scale per row and group of columns; see packages/kernels/src/ops/quantize-fp8.ts.

#include "../core/registry.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

void quantizeFp8(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const View& out = ctx.buffer("out");
  const View& scale = ctx.buffer("scale");
  const auto groupSize = static_cast<int64_t>(ctx.number("groupSize"));
  if (groupSize < 1 || x.columns % groupSize != 0) ctx.fail("groupSize doesn't divide the columns of x");
  const int64_t groups = x.columns / groupSize;
  ctx.expect("out", x.rows, x.columns);
  ctx.expect("scale", x.rows, groups);
  float* rooms = ctx.scratchF32(ctx.threads() * x.columns);
  ctx.parallelFor(x.rows, [&](int64_t t, int worker) {
    const float* row = readRow(x, t, rooms + worker * x.columns);
    for (int64_t g = 0; g < groups; g++) {
      uint8_t* codes = out.e4m3() + t * x.columns + g * groupSize;
      scale.f32()[t * groups + g] = quantizeGroup(row + g * groupSize, groupSize, codes);
    }
  });
}

FIREQ_OP(quantizeFp8, quantizeFp8);

}  // namespace
}  // namespace fireq::FIREQ_ISA
