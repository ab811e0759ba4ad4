// out[t] = table[tokens[t]]; see packages/kernels/src/ops/embed.ts.

#include "../core/registry.h"
#include "../simd/convert.h"

namespace fireq::FIREQ_ISA {
namespace {

void embed(OpContext& ctx) {
  const View& tokens = ctx.buffer("tokens");
  const View& out = ctx.buffer("out");
  const Weight& table = ctx.weight("table");
  if (table.isVector()) ctx.fail("expected a table of rank 2");
  ctx.expect("out", tokens.rows, table.columns);
  float* rooms = ctx.scratchF32(ctx.threads() * out.columns);
  ctx.parallelFor(tokens.rows, [&](int64_t t, int worker) {
    const int32_t id = tokens.i32()[t];
    if (id < 0 || id >= table.rows) {
      ctx.fail("token %lld has id %d, outside the vocabulary of %lld", static_cast<long long>(t), id,
               static_cast<long long>(table.rows));
    }
    float* row = roomFor(out, t, rooms + worker * out.columns);
    table.decodeRow(id, row);
    writeRow(row, out, t);
  });
}

FIREQ_OP(embed, embed);

}  // namespace
}  // namespace fireq::FIREQ_ISA
