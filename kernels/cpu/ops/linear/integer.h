#pragma once

// Few FP8 tokens meet INT4 weights in whole numbers: decoding a token is bound by how fast weights can be worked off, and
// byte products are twice as fast as converting codes to FP32. E4M3 numbers are multiples of 2⁻⁹ up to 448·2⁹ < 2¹⁸, so
// three signed digits to the base 128 hold one exactly; codes are 4 bits; a block's sum fits an int32. So a block's sum is
// exact, and rounds once when it becomes FP32.

#include "../../simd/decode.h"
#include "epilogue.h"
#include "pack.h"

namespace fireq::FIREQ_ISA {

constexpr int kDigits = 3;
/// Beyond, a decoded FP32 value serves enough tokens to pay.
constexpr int64_t kIntegerTokens = 3;

/// Bytes of an octet of K, per token: for each digit the values 0, 2, 4, 6 (of the codes in a word's even nibbles), then
/// 1, 3, 5, 7.
struct PackedDigits {
  uint32_t* digits;  ///< [word row][token][digit][2]
  int32_t* starts;   ///< [block][token] −8·Σx in units of 2⁻⁹
  float* poison;     ///< [token] 0, or NaN if the token has one
};

FIREQ_INLINE bool usesIntegers(const View& x, const Weight& weight) {
  return FIREQ_BYTE_DOT && x.dtype == DType::E4M3 && weight.format == WeightFormat::Int4 && x.rows >= 1 && x.rows <= kIntegerTokens;
}

#if FIREQ_BYTE_DOT

inline PackedDigits packDigits(OpContext& ctx, const View& x, const Weight& weight) {
  const int64_t tokens = x.rows;
  PackedDigits packed;
  const size_t bytes = weight.wordRows * tokens * kDigits * 2 * sizeof(uint32_t);
  packed.digits = static_cast<uint32_t*>(ctx.scratch(bytes));
  packed.starts = static_cast<int32_t*>(ctx.scratch(weight.blockCount() * tokens * sizeof(int32_t)));
  packed.poison = ctx.scratchF32(tokens);
  float* room = ctx.scratchF32(x.columns);
  std::memset(packed.digits, 0, bytes);
  auto* out = reinterpret_cast<int8_t*>(packed.digits);
  const Block* blocks = weight.blockData();
  for (int64_t t = 0; t < tokens; t++) {
    const float* row = readRow(x, t, room);
    packed.poison[t] = 0;
    for (int64_t b = 0; b < weight.blockCount(); b++) {
      int32_t sum = 0;
      for (int32_t i = 0; i < blocks[b].length; i++) {
        const float value = row[blocks[b].begin + i];
        if (value != value) packed.poison[t] = value;
        const auto whole = value == value ? static_cast<int32_t>(value * 512) : 0;
        sum += whole;
        const int32_t low = ((whole + 64) & 127) - 64;
        const int32_t rest = (whole - low) >> 7;
        const int32_t middle = ((rest + 64) & 127) - 64;
        const int32_t digits[kDigits] = {low, middle, (rest - middle) >> 7};
        int8_t* octet = out + ((blocks[b].word + i / 8) * tokens + t) * kDigits * 8;
        for (int d = 0; d < kDigits; d++) octet[d * 8 + i % 2 * 4 + i % 8 / 2] = static_cast<int8_t>(digits[d]);
      }
      packed.starts[b * tokens + t] = -8 * sum;
    }
  }
  return packed;
}

template <int Tokens>
void integerTile(const Weight& weight, int64_t tile, const PackedDigits& x, const Epilogue& epilogue) {
  // What 16 bits hold: 16 sums of two products up to 15·64.
  constexpr int32_t kRun = 8;
  static_assert(2 * kRun * 2 * 15 * 64 < 1 << 15);
  const VU places[kDigits] = {splatU(0x00010001u), splatU(0x00800080u), splatU(0x40004000u)};  // 1, 128, 128²
  const VU nibbles = splatU(0x0f0f0f0fu);
  const uint32_t* words = weight.words(tile);
  const float* scales = weight.scales(tile);
  const Block* blocks = weight.blockData();
  Row16 totals[Tokens] = {};
  for (int64_t b = 0; b < weight.blockCount(); b++) {
    VU sums[Tokens][kParts];
    for (int t = 0; t < Tokens; t++) {
      for (int p = 0; p < kParts; p++) sums[t][p] = splatU(static_cast<uint32_t>(x.starts[b * Tokens + t]));
    }
    const int32_t end = blocks[b].word + blocks[b].words;
    for (int32_t first = blocks[b].word; first < end; first += kRun) {
      VU run[Tokens][kDigits][kParts] = {};
      const int32_t last = first + kRun < end ? first + kRun : end;
      for (int32_t w = first; w < last; w++) {
        const uint32_t* digits = x.digits + static_cast<int64_t>(w) * Tokens * kDigits * 2;
        VU even[kParts], odd[kParts];
        for (int p = 0; p < kParts; p++) {
          const VU word = load<VU>(words + static_cast<int64_t>(w) * kTile + p * kWidth);
          if (p == 0) prefetchWeights(words + static_cast<int64_t>(w) * kTile);
          even[p] = word & nibbles;
          odd[p] = word >> 4 & nibbles;
        }
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; t++) {
#pragma GCC unroll 3
          for (int d = 0; d < kDigits; d++) {
            const VU evenX = splatU(digits[(t * kDigits + d) * 2]);
            const VU oddX = splatU(digits[(t * kDigits + d) * 2 + 1]);
            for (int p = 0; p < kParts; p++) {
              const VU both = addHalves(dotBytes(even[p], evenX), dotBytes(odd[p], oddX));
              run[t][d][p] = addHalves(run[t][d][p], both);
            }
          }
        }
      }
      for (int t = 0; t < Tokens; t++) {
        for (int d = 0; d < kDigits; d++) {
          for (int p = 0; p < kParts; p++) sums[t][p] += dotHalves(run[t][d][p], places[d]);
        }
      }
    }
    for (int t = 0; t < Tokens; t++) {
      for (int p = 0; p < kParts; p++) {
        VF& total = totals[t].part[p];
        total = fma(load<VF>(scales + b * kTile + p * kWidth), toF(sums[t][p]), total);
      }
    }
  }
  for (int t = 0; t < Tokens; t++) {
    for (int p = 0; p < kParts; p++) totals[t].part[p] = totals[t].part[p] * 0x1p-9f + x.poison[t];
    epilogue.finish(totals[t], t, tile);
  }
}

template <int Tokens>
void runIntegerTiles(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  const PackedDigits packed = packDigits(ctx, x, weight);
  forTiles(ctx, weight, [&](int64_t tile) { integerTile<Tokens>(weight, tile, packed, epilogue); });
}

inline void runIntegers(OpContext& ctx, const View& x, const Weight& weight, const Epilogue& epilogue) {
  switch (x.rows) {
    case 1: return runIntegerTiles<1>(ctx, x, weight, epilogue);
    case 2: return runIntegerTiles<2>(ctx, x, weight, epilogue);
    default: return runIntegerTiles<3>(ctx, x, weight, epilogue);
  }
}

#else

inline void runIntegers(OpContext& ctx, const View&, const Weight&, const Epilogue&) { ctx.fail("no integer kernel"); }

#endif

}  // namespace fireq::FIREQ_ISA
