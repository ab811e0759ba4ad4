#pragma once

// Few tokens: weights are decoded into registers and used at once, so that they are read from memory as fast as can be.

#include "../../simd/decode.h"
#include "epilogue.h"
#include "pack.h"

namespace fireq::FIREQ_ISA {

/// Sums in work at once: enough to hide a multiply-add's latency, few enough for the registers.
constexpr int kChains = kWidth == 16 ? 8 : 4;

/// Sums of `Blocks` equal blocks side by side, each of `count` words.
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
    VU word[Blocks][kParts];
    for (int b = 0; b < Blocks; b++) {
      prefetchWeights(words + b * wordStep + w * kTile);
      for (int p = 0; p < kParts; p++) word[b][p] = load<VU>(words + b * wordStep + w * kTile + p * kWidth);
    }
    // One value of every word in turn: neighbouring multiply-adds then belong to different sums, and none waits.
    unrolled<kPer>([&](auto j) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int b = 0; b < Blocks; b++) {
        const float* input = x + b * xStep + (w * kPer + j) * Tokens;
#pragma GCC unroll 4
        for (int p = 0; p < kParts; p++) {
          const VF scale = Decode::kScaled || scales == nullptr ? VF{} : load<VF>(scales + b * kTile + p * kWidth);
          const VF value = Decode::template value<j>(word[b][p], scale);
#pragma GCC unroll 4
          for (int t = 0; t < Tokens; t++) sums[b][t].part[p] = fma(splat(input[t]), value, sums[b][t].part[p]);
        }
      }
    });
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
  constexpr int kSide = std::max(1, kChains / (Tokens * kParts));
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
  forTiles(ctx, weight, [&](int64_t tile) { fusedTile<Decode, Tokens>(weight, tile, packed, epilogue); });
}

}  // namespace fireq::FIREQ_ISA
