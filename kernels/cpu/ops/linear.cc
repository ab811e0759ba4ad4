// out[t, n] = xScale[t] · channelScale[n] · Σₖ x[t, k]·W[n, k] + bias[n] + residual[t, n]; see packages/kernels/src/ops/linear.ts.
//
// Each sum runs block by block along K: a block's products in order of k, then total += scale · block. That order is the
// same on every path below and for every number of tokens and threads, so a token's result doesn't depend on its batch.

#include <algorithm>

#include "../core/registry.h"
#include "../simd/decode.h"
#include "../simd/micro.h"

namespace fireq::FIREQ_ISA {
namespace {

/// Tokens up to which weights are decoded into registers and used at once; beyond, they pass through a panel in cache.
constexpr int kFusedTokens = 4;
/// A panel task: tiles of output features by tokens.
constexpr int kTaskTiles = 4;
constexpr int kTaskTokens = 144;
static_assert(kTaskTokens % kRows == 0);

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

void packToken(const float* x, const Weight& weight, const Packed& to, int64_t g, int lane) {
  const bool int4 = weight.format == WeightFormat::Int4;
  const int perWord = weight.valuesPerWord();
  float* values = to.values + g * to.paddedK * to.group + lane;
  float* starts = to.starts + g * to.blocks * to.group + lane;
  const float factors[4] = {1, 0x1p-4f, 0x1p-8f, 0x1p-12f};
  const Block* blocks = weight.blockData();
  for (int64_t b = 0; b < to.blocks; b++) {
    const Block& block = blocks[b];
    float* out = values + static_cast<int64_t>(block.word) * perWord * to.group;
    float partial[16] = {};
    for (int32_t i = 0; i < block.length; i++) {
      const float value = x[block.begin + i];
      partial[i % 16] += value;
      out[i * to.group] = int4 ? value * factors[i % 4] : value;
    }
    for (int32_t i = block.length; i < block.words * perWord; i++) out[i * to.group] = 0;
    starts[b * to.group] = int4 ? -8 * sum16(load16(partial)) : 0;
  }
}

Packed packTokens(OpContext& ctx, const View& x, const Weight& weight, int group) {
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

/// What happens to a finished sum.
struct Epilogue {
  const float* xScale = nullptr;
  const float* channelScale = nullptr;  ///< padded to whole tiles
  const float* bias = nullptr;
  const View* residual = nullptr;
  View out;

  void finish(const Row16& total, int64_t token, int64_t tile) const {
    const int64_t n = tile * kTile;
    const int64_t count = std::min<int64_t>(kTile, out.columns - n);
    Row16 sum = total;
    float added[kTile] = {};
    if (bias != nullptr) std::memcpy(added, bias + n, count * sizeof(float));
    const Row16 biases = load16(added);
    if (residual != nullptr) {
      const size_t size = sizeOf(residual->dtype);
      toFloats(residual->dtype, rowOf(*residual, token) + n * size, count, added);
    }
    const Row16 residuals = load16(added);
    for (int p = 0; p < kParts; p++) {
      VF& v = sum.part[p];
      if (xScale != nullptr) v *= xScale[token];
      if (channelScale != nullptr) v *= load<VF>(channelScale + n + p * kWidth);
      if (bias != nullptr) v += biases.part[p];
      if (residual != nullptr) v += residuals.part[p];
    }
    float lanes[kTile];
    store16(lanes, sum);
    fromFloats(lanes, count, out.dtype, rowOf(out, token) + n * sizeOf(out.dtype));
  }
};

/// Sums of `Blocks` equal blocks side by side, each of `count` words: enough independent chains to hide the latency.
template <class Decode, int Tokens, int Blocks>
FIREQ_INLINE void sumBlocks(const uint32_t* words, int32_t count, const float* scales, const float* x,
                            const float* starts, Row16 (&totals)[Tokens]) {
  constexpr int kPer = Decode::kPerWord;
  const int64_t wordStep = static_cast<int64_t>(count) * kTile;
  const int64_t xStep = static_cast<int64_t>(count) * kPer * Tokens;
  Row16 sums[Blocks][Tokens];
  for (int b = 0; b < Blocks; b++) {
    for (int t = 0; t < Tokens; t++) {
      for (int p = 0; p < kParts; p++) sums[b][t].part[p] = splat(starts[b * Tokens + t]);
    }
  }
  for (int32_t w = 0; w < count; w++) {
#pragma GCC unroll 8
    for (int b = 0; b < Blocks; b++) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; p++) {
        const VU word = load<VU>(words + b * wordStep + w * kTile + p * kWidth);
        const VF scale = Decode::kScaled || scales == nullptr ? VF{} : load<VF>(scales + b * kTile + p * kWidth);
        unrolled<kPer>([&](auto j) __attribute__((always_inline)) {
          const VF value = Decode::template value<j>(word, scale);
#pragma GCC unroll 4
          for (int t = 0; t < Tokens; t++) {
            const VF input = splat(x[b * xStep + (w * kPer + j) * Tokens + t]);
            sums[b][t].part[p] = fma(input, value, sums[b][t].part[p]);
          }
        });
      }
    }
  }
  for (int b = 0; b < Blocks; b++) {
    for (int t = 0; t < Tokens; t++) {
      for (int p = 0; p < kParts; p++) {
        VF& total = totals[t].part[p];
        const VF sum = sums[b][t].part[p];
        total = Decode::kScaled ? fma(load<VF>(scales + b * kTile + p * kWidth), sum, total) : total + sum;
      }
    }
  }
}

template <class Decode, int Tokens>
void fusedTile(const Weight& weight, int64_t tile, const Packed& x, const Epilogue& epilogue) {
  constexpr int kSide = std::max(1, 8 / (Tokens * kParts));
  const uint32_t* words = weight.words(tile);
  const float* scales = weight.isInt4() ? weight.scales(tile) : nullptr;
  const Block* blocks = weight.blockData();
  Row16 totals[Tokens] = {};
  for (int64_t b = 0; b < x.blocks;) {
    const Block& block = blocks[b];
    const uint32_t* from = words + static_cast<int64_t>(block.word) * kTile;
    const float* values = x.values + static_cast<int64_t>(block.word) * Decode::kPerWord * Tokens;
    const float* starts = x.starts + b * Tokens;
    const float* scale = scales == nullptr ? nullptr : scales + b * kTile;
    bool equal = b + kSide <= x.blocks;
    for (int i = 1; equal && i < kSide; i++) equal = blocks[b + i].words == block.words;
    if (equal) {
      sumBlocks<Decode, Tokens, kSide>(from, block.words, scale, values, starts, totals);
      b += kSide;
    } else {
      sumBlocks<Decode, Tokens, 1>(from, block.words, scale, values, starts, totals);
      b++;
    }
  }
  for (int t = 0; t < Tokens; t++) epilogue.finish(totals[t], t, tile);
}

template <class Decode, int Tokens>
void runFused(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  const Packed packed = packTokens(ctx, x, weight, Tokens);
  const int64_t chunk = std::clamp<int64_t>(weight.tiles / (ctx.threads() * 8), 1, 16);
  ctx.parallelFor((weight.tiles + chunk - 1) / chunk, [&](int64_t task, int) {
    const int64_t end = std::min(weight.tiles, (task + 1) * chunk);
    for (int64_t tile = task * chunk; tile < end; tile++) fusedTile<Decode, Tokens>(weight, tile, packed, epilogue);
  });
}

/// Sums of one panel task, block by block: decode the block of each tile once, then all tokens meet it.
template <class Decode>
void panelTask(const Weight& weight, int64_t firstTile, int64_t tiles, const Packed& x, int64_t firstGroup,
               int64_t groups, float* panels, float* totals) {
  const Block* blocks = weight.blockData();
  for (int64_t b = 0; b < x.blocks; b++) {
    const Block& block = blocks[b];
    const int64_t count = static_cast<int64_t>(block.words) * Decode::kPerWord;
    for (int64_t i = 0; i < tiles; i++) {
      const float* scales = weight.isInt4() ? weight.scales(firstTile + i) + b * kTile : nullptr;
      const uint32_t* words = weight.words(firstTile + i) + static_cast<int64_t>(block.word) * kTile;
      decodePanel<Decode>(words, block.words, scales, panels + i * kBlock * kTile);
    }
    for (int64_t g = 0; g < groups; g++) {
      const float* values = x.valuesOf(firstGroup + g) + static_cast<int64_t>(block.word) * Decode::kPerWord * kRows;
      const float* starts = x.startsOf(firstGroup + g) + b * kRows;
      for (int64_t i = 0; i < tiles; i++) {
        Row16 sums[kRows];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; r++) {
          for (int p = 0; p < kParts; p++) sums[r].part[p] = splat(starts[r]);
        }
        multiply<kRows>(values, 1, kRows, panels + i * kBlock * kTile, kTile, count, sums);
        float* to = totals + (i * groups + g) * kRows * kTile;
#pragma GCC unroll 16
        for (int r = 0; r < kRows; r++) {
          for (int p = 0; p < kParts; p++) {
            float* total = to + r * kTile + p * kWidth;
            const VF before = b == 0 ? VF{} : load<VF>(total);
            if constexpr (Decode::kScaled) {
              const VF scale = load<VF>(weight.scales(firstTile + i) + b * kTile + p * kWidth);
              store(total, fma(scale, sums[r].part[p], before));
            } else {
              store(total, before + sums[r].part[p]);
            }
          }
        }
      }
    }
  }
}

template <class Decode>
void runPanels(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  const Packed packed = packTokens(ctx, x, weight, kRows);
  const int64_t tokens = x.rows;
  const int64_t tileTasks = (weight.tiles + kTaskTiles - 1) / kTaskTiles;
  const int64_t tokenTasks = (tokens + kTaskTokens - 1) / kTaskTokens;
  constexpr int64_t kPanelFloats = kTaskTiles * kBlock * kTile;
  constexpr int64_t kTotalFloats = kTaskTiles * kTile * kTaskTokens;
  float* rooms = ctx.scratchF32(ctx.threads() * (kPanelFloats + kTotalFloats));
  ctx.parallelFor(tileTasks * tokenTasks, [&](int64_t task, int worker) {
    float* panels = rooms + worker * (kPanelFloats + kTotalFloats);
    float* totals = panels + kPanelFloats;
    const int64_t firstTile = task % tileTasks * kTaskTiles;
    const int64_t tiles = std::min<int64_t>(kTaskTiles, weight.tiles - firstTile);
    const int64_t firstGroup = task / tileTasks * (kTaskTokens / kRows);
    const int64_t groups = std::min<int64_t>(kTaskTokens / kRows, packed.groups - firstGroup);
    panelTask<Decode>(weight, firstTile, tiles, packed, firstGroup, groups, panels, totals);
    for (int64_t g = 0; g < groups; g++) {
      for (int r = 0; r < kRows; r++) {
        const int64_t token = (firstGroup + g) * kRows + r;
        if (token >= tokens) break;
        for (int64_t i = 0; i < tiles; i++) {
          epilogue.finish(load16(totals + ((i * groups + g) * kRows + r) * kTile), token, firstTile + i);
        }
      }
    }
  });
}

template <class Decode>
void runFormat(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  static_assert(kFusedTokens == 4);
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
  switch (weight.format) {
    case WeightFormat::Int4: return runFormat<DecodeInt4>(ctx, x, weight, epilogue);
    case WeightFormat::Int4Lookup: return runFormat<DecodeInt4Lookup>(ctx, x, weight, epilogue);
    case WeightFormat::BF16: return runFormat<DecodeBf16>(ctx, x, weight, epilogue);
    case WeightFormat::F16: return runFormat<DecodeF16>(ctx, x, weight, epilogue);
    case WeightFormat::F32: return runFormat<DecodeF32>(ctx, x, weight, epilogue);
  }
}

const RegisterOp registered(Isa::FIREQ_ISA, "linear", linear);

}  // namespace
}  // namespace fireq::FIREQ_ISA
