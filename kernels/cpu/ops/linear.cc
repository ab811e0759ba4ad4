// out[t, n] = xScale[t] · channelScale[n] · Σₖ x[t, k]·W[n, k] + bias[n] + residual[t, n]; see packages/kernels/src/ops/linear.ts.
//
// Each sum runs block by block along K: a block's products in order of k, then total += scale · block. That order is the
// same for every number of tokens and threads, so a token's result doesn't depend on its batch: with one exception, up to
// three FP8 tokens with INT4 weights take the integer path, whose block sums are exact.
//
// A NaN in x makes its token's results NaN. An infinity does too with INT4 weights (the reference may give an infinity).

#include "../core/registry.h"
#include "linear/fused.h"
#include "linear/integer.h"
#include "linear/panels.h"

namespace fireq::FIREQ_ISA {
namespace {

template <class Decode>
void runFormat(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  switch (x.rows) {
    case 0: return;
    case 1: return runFused<Decode, 1>(ctx, x, weight, epilogue);
    case 2: return runFused<Decode, 2>(ctx, x, weight, epilogue);
    case 3: return runFused<Decode, 3>(ctx, x, weight, epilogue);
    case 4: return runFused<Decode, 4>(ctx, x, weight, epilogue);
    default: return runPanels<Decode>(ctx, x, weight, epilogue);
  }
}

void linear(OpContext& ctx) {
  const View& x = ctx.buffer("x");
  const Weight& weight = ctx.weight("weight");
  Epilogue epilogue;
  epilogue.out = ctx.buffer("out");
  if (weight.isVector()) ctx.fail("expected a weight of rank 2");
  ctx.expect("x", x.rows, weight.columns);
  ctx.expect("out", x.rows, weight.rows);
  if (ctx.has("xScale")) {
    ctx.expect("xScale", x.rows, 1);
    epilogue.xScale = ctx.buffer("xScale").f32();
  }
  if (ctx.has("residual")) {
    ctx.expect("residual", x.rows, weight.rows);
    epilogue.residual = &ctx.buffer("residual");
  }
  if (ctx.has("bias")) epilogue.bias = ctx.vectorWeight("bias", weight.rows);
  if (!weight.channelScale.empty()) epilogue.channelScale = weight.channelScale.data();
  if (usesIntegers(x, weight)) return runIntegers(ctx, x, weight, epilogue);
  switch (weight.format) {
    case WeightFormat::Int4: return runFormat<DecodeInt4>(ctx, x, weight, epilogue);
    case WeightFormat::Int4Lookup: return runFormat<DecodeInt4Lookup>(ctx, x, weight, epilogue);
    case WeightFormat::BF16: return runFormat<DecodeBf16>(ctx, x, weight, epilogue);
    case WeightFormat::F16: return runFormat<DecodeF16>(ctx, x, weight, epilogue);
    case WeightFormat::F32: return runFormat<DecodeF32>(ctx, x, weight, epilogue);
  }
}

FIREQ_OP(linear, linear);

}  // namespace
}  // namespace fireq::FIREQ_ISA
