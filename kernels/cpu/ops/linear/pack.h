#pragma once

#include "../../core/op.h"
#include "../../simd/decode.h"

namespace fireq::FIREQ_ISA {

/// Activations in the order of the weight's words: values[group][padded k][tokens of the group], with DecodeInt4's
/// factors applied, and per block the value that sums start from.
struct Packed {
  int group;       ///< tokens side by side
  int64_t groups;  ///< ⌈tokens / group⌉, the last filled up with zeros
  int64_t paddedK;
  int64_t blocks;
  float* values;
  float* starts;  ///< [group][block][tokens of the group]

  const float* valuesOf(int64_t g) const { return values + g * paddedK * group; }
  const float* startsOf(int64_t g) const { return starts + g * blocks * group; }
};

inline void packToken(const float* x, const Weight& weight, const Packed& to, int64_t g, int lane) {
  const bool int4 = weight.format == WeightFormat::Int4;
  const int perWord = weight.valuesPerWord();
  float* values = to.values + g * to.paddedK * to.group + lane;
  float* starts = to.starts + g * to.blocks * to.group + lane;
  const Block* blocks = weight.blockData();
  for (int64_t b = 0; b < to.blocks; b++) {
    const Block& block = blocks[b];
    float* out = values + static_cast<int64_t>(block.word) * perWord * to.group;
    float partial[16] = {};
    for (int32_t i = 0; i < block.length; i++) {
      const float value = x[block.begin + i];
      partial[i % 16] += value;
      out[i * to.group] = int4 ? value * kInt4Factors[i % 8] : value;
    }
    for (int32_t i = block.length; i < block.words * perWord; i++) out[i * to.group] = 0;
    starts[b * to.group] = int4 ? -8 * sum16(load16(partial)) : 0;
  }
}

inline Packed packTokens(OpContext& ctx, const View& x, const Weight& weight, int group) {
  Packed packed{group, (x.rows + group - 1) / group, weight.paddedColumns(), weight.blockCount(), nullptr, nullptr};
  packed.values = ctx.scratchF32(packed.groups * packed.paddedK * group);
  packed.starts = ctx.scratchF32(packed.groups * packed.blocks * group);
  float* rooms = ctx.scratchF32(ctx.threads() * x.columns);
  const auto packGroup = [&](int64_t g, int worker) {
    float* room = rooms + worker * x.columns;
    for (int lane = 0; lane < group; lane++) {
      const int64_t t = g * group + lane;
      if (t < x.rows) {
        packToken(readRow(x, t, room), weight, packed, g, lane);
      } else {
        for (int64_t i = 0; i < packed.paddedK; i++) packed.values[(g * packed.paddedK + i) * group + lane] = 0;
        for (int64_t b = 0; b < packed.blocks; b++) packed.starts[(g * packed.blocks + b) * group + lane] = 0;
      }
    }
  };
  if (packed.groups == 1) {
    packGroup(0, 0);
  } else {
    ctx.parallelFor(packed.groups, packGroup);
  }
  return packed;
}

}  // namespace fireq::FIREQ_ISA
