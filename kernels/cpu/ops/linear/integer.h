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

/// Activations as digits, in bytes: 8 of K in their order, 4 for the low nibbles of a word's bytes and 4 for the high.
struct PackedDigits {
  uint32_t* digits;  ///< [word row][token][digit][2]
  int32_t* starts;   ///< [block][token] −8·Σx in units of 2⁻⁹
  float* poison;     ///< [token] 0, or NaN if the token has one
};

FIREQ_INLINE bool usesIntegers(const View& x, const Weight& weight) {
  return FIREQ_BYTE_DOT && x.dtype == DType::E4M3 && weight.format == WeightFormat::Int4 && x.rows >= 1 && x.rows <= kIntegerTokens;
}

#if FIREQ_BYTE_DOT

using Bytes8 = VectorOf<8>::B;
using Int8 = VectorOf<8>::I;

/// E4M3 numbers in units of 2⁻⁹. A NaN gives some number; `nan` says that there is one.
FIREQ_INLINE Int8 wholeNumbers(const uint8_t* codes, Int8& nan) {
  const Int8 code = __builtin_convertvector(load<Bytes8>(codes), Int8);
  const Int8 exponent = code >> 3 & 15;
  const Int8 normal = exponent > 0;  // −1 if so
  const Int8 magnitude = ((code & 7) | (normal & 8)) << (exponent + normal);
  const Int8 sign = -(code >> 7);
  nan |= (code & 127) == 127;
  return (magnitude ^ sign) - sign;
}

/// Takes the lowest digit, −64…63, off.
FIREQ_INLINE Int8 takeDigit(Int8& number) {
  const Int8 digit = ((number + 64) & 127) - 64;
  number = (number - digit) >> 7;
  return digit;
}

/// 8 bytes of each digit, one after another.
FIREQ_INLINE void storeDigits(uint32_t* to, Int8 low, Int8 middle, Int8 high) {
  typedef uint8_t Bytes32 __attribute__((vector_size(32)));
  const auto all = reinterpret_cast<Bytes32>((low & 255) | (middle & 255) << 8 | high << 16);
  const Bytes32 sorted = __builtin_shufflevector(all, all, 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29, 2,
                                                 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
  std::memcpy(to, &sorted, kDigits * 8);
}

inline PackedDigits packDigits(OpContext& ctx, const View& x, const Weight& weight) {
  const int64_t tokens = x.rows;
  PackedDigits packed;
  packed.digits = static_cast<uint32_t*>(ctx.scratch(weight.wordRows * tokens * kDigits * 2 * sizeof(uint32_t)));
  packed.starts = static_cast<int32_t*>(ctx.scratch(weight.blockCount() * tokens * sizeof(int32_t)));
  packed.poison = ctx.scratchF32(tokens);
  const Block* blocks = weight.blockData();
  for (int64_t t = 0; t < tokens; t++) {
    Int8 nan{};
    for (int64_t b = 0; b < weight.blockCount(); b++) {
      Int8 sum{};
      for (int32_t w = 0; w < blocks[b].words; w++) {
        const uint8_t* codes = x.e4m3() + t * x.columns + blocks[b].begin + 8 * w;
        const int32_t count = blocks[b].length - 8 * w;
        uint8_t padded[8] = {};
        if (count < 8) codes = static_cast<const uint8_t*>(std::memcpy(padded, codes, count));
        Int8 number = wholeNumbers(codes, nan);
        sum += number;
        uint32_t* octet = packed.digits + ((blocks[b].word + w) * tokens + t) * kDigits * 2;
        const Int8 low = takeDigit(number), middle = takeDigit(number);
        storeDigits(octet, low, middle, number);
      }
      int32_t total = 0;
      for (int lane = 0; lane < 8; lane++) total += sum[lane];
      packed.starts[b * tokens + t] = -8 * total;
    }
    bool poisoned = false;
    for (int lane = 0; lane < 8; lane++) poisoned |= nan[lane] != 0;
    packed.poison[t] = poisoned ? __builtin_nanf("") : 0;
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
        VU low[kParts], high[kParts];
        for (int p = 0; p < kParts; p++) {
          const VU word = load<VU>(words + static_cast<int64_t>(w) * kTile + p * kWidth);
          if (p == 0) prefetchWeights(words + static_cast<int64_t>(w) * kTile);
          low[p] = word & nibbles;
          high[p] = word >> 4 & nibbles;
        }
#pragma GCC unroll 4
        for (int t = 0; t < Tokens; t++) {
#pragma GCC unroll 3
          for (int d = 0; d < kDigits; d++) {
            const VU lowX = splatU(digits[(t * kDigits + d) * 2]);
            const VU highX = splatU(digits[(t * kDigits + d) * 2 + 1]);
            for (int p = 0; p < kParts; p++) {
              const VU both = addHalves(dotBytes(low[p], lowX), dotBytes(high[p], highX));
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
