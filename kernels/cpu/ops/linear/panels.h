#pragma once

// Many tokens: weights are decoded block by block into panels in cache, which all tokens of a task then meet.

#include "../../simd/decode.h"
#include "../../simd/micro.h"
#include "epilogue.h"
#include "pack.h"

namespace fireq::FIREQ_ISA {

/// A task: tiles of output features by tokens.
constexpr int kTaskTiles = 4;
constexpr int kTaskTokens = 144;
static_assert(kTaskTokens % kRows == 0);

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

}  // namespace fireq::FIREQ_ISA
