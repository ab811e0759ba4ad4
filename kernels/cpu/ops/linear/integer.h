#pragma once

// Few FP8 tokens meet INT4 weights in whole numbers: decoding a token is bound by how fast weights can be worked off, and
// byte products are twice as fast as converting codes to FP32. E4M3 numbers are multiples of 2⁻⁹ up to 448·2⁹ < 2¹⁸, so
// three signed digits to the base 128 hold one exactly; codes are 4 bits; a block's sum fits an int32. So a block's sum is
// exact, and rounds once when it becomes FP32. Most runs of numbers span fewer bits and make do with two digits.

#include <bit>

#include "../../simd/decode.h"
#include "epilogue.h"
#include "pack.h"

namespace fireq::FIREQ_ISA {

constexpr int kMaxDigits = 3;
/// What two digits hold, either sign.
constexpr int32_t kTwoDigits = 63 * 128 + 63;
/// Words whose products are summed in 16 bits: 2 sums each, of two products up to 15·64.
constexpr int32_t kRunWords = 8;
static_assert(kRunWords * 2 * 2 * 15 * 64 < 1 << 15);
/// Beyond, a decoded FP32 value serves enough tokens to pay.
constexpr int64_t kIntegerTokens = 3;

/// How a run of words' activations are written: Σ digit[d]·128ᵈ·2^shift, in units of 2⁻⁹.
struct Run {
  const uint32_t* digits;  ///< [word][token][digit][2]: in bytes, 4 for a word's low nibbles and 4 for its high ones
  int32_t count;           ///< of digits, 2 or 3
  int32_t shift;
};

struct PackedDigits {
  Run* runs;        ///< in order; each block begins one
  int32_t* starts;  ///< [block][token] −8·Σx in units of 2⁻⁹
  float* poison;    ///< [token] 0, or NaN if the token has one
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

/// 8 bytes of each digit, one after another; returns where the next go.
FIREQ_INLINE uint32_t* storeDigits(uint32_t* to, Int8 number, int count) {
  typedef uint8_t Bytes32 __attribute__((vector_size(32)));
  const Int8 low = takeDigit(number), middle = takeDigit(number);
  const auto all = reinterpret_cast<Bytes32>((low & 255) | (middle & 255) << 8 | number << 16);
  const Bytes32 sorted = __builtin_shufflevector(all, all, 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29, 2,
                                                 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
  std::memcpy(to, &sorted, kMaxDigits * 8);
  return to + count * 2;
}

/// The `words` words of a token's activations from column `begin`; zeros beyond the block's `length`.
FIREQ_INLINE void readRun(const uint8_t* codes, int32_t length, int32_t words, Int8* numbers, Int8& nan) {
  for (int32_t w = 0; w < words; w++) {
    const int32_t count = length - 8 * w;
    uint8_t padded[8] = {};
    const bool whole = count >= 8;
    if (!whole) std::memcpy(padded, codes + 8 * w, count);
    numbers[w] = wholeNumbers(whole ? codes + 8 * w : padded, nan);
  }
}

/// The fewest digits that hold every number exactly.
inline Run fewestDigits(const Int8* numbers, int count) {
  Int8 bits{}, largest{};
  for (int i = 0; i < count; i++) {
    const Int8 magnitude = numbers[i] < 0 ? -numbers[i] : numbers[i];
    bits |= magnitude;
    largest = magnitude > largest ? magnitude : largest;
  }
  int32_t anyBits = 0, most = 0;
  for (int lane = 0; lane < 8; lane++) {
    anyBits |= bits[lane];
    most = std::max(most, largest[lane]);
  }
  const int32_t shift = anyBits == 0 ? 0 : std::countr_zero(static_cast<uint32_t>(anyBits));
  return most >> shift <= kTwoDigits ? Run{nullptr, 2, shift} : Run{nullptr, kMaxDigits, 0};
}

FIREQ_INLINE int32_t runsOf(const Block& block) { return (block.words + kRunWords - 1) / kRunWords; }

template <int Tokens>
PackedDigits packDigits(OpContext& ctx, const View& x, const Weight& weight) {
  const Block* blocks = weight.blockData();
  int64_t runs = 0;
  for (int64_t b = 0; b < weight.blockCount(); b++) runs += runsOf(blocks[b]);
  PackedDigits packed;
  packed.runs = static_cast<Run*>(ctx.scratch(runs * sizeof(Run)));
  packed.starts = static_cast<int32_t*>(ctx.scratch(weight.blockCount() * Tokens * sizeof(int32_t)));
  packed.poison = ctx.scratchF32(Tokens);
  constexpr int kWordDigits = Tokens * kMaxDigits * 2;
  auto* next = static_cast<uint32_t*>(ctx.scratch((weight.wordRows * kWordDigits + kMaxDigits * 2) * sizeof(uint32_t)));
  Run* run = packed.runs;
  Int8 nan[Tokens] = {};
  for (int64_t b = 0; b < weight.blockCount(); b++) {
    Int8 sums[Tokens] = {};
    for (int32_t first = 0; first < blocks[b].words; first += kRunWords) {
      const int32_t words = std::min(kRunWords, blocks[b].words - first);
      Int8 numbers[Tokens][kRunWords] = {};
      for (int t = 0; t < Tokens; t++) {
        const uint8_t* codes = x.e4m3() + t * x.columns + blocks[b].begin + 8 * first;
        readRun(codes, blocks[b].length - 8 * first, words, numbers[t], nan[t]);
      }
      *run = fewestDigits(numbers[0], Tokens * kRunWords);
      run->digits = next;
      for (int32_t w = 0; w < words; w++) {
        for (int t = 0; t < Tokens; t++) {
          sums[t] += numbers[t][w];
          next = storeDigits(next, numbers[t][w] >> run->shift, run->count);
        }
      }
      run++;
    }
    for (int t = 0; t < Tokens; t++) {
      int32_t total = 0;
      for (int lane = 0; lane < 8; lane++) total += sums[t][lane];
      packed.starts[b * Tokens + t] = -8 * total;
    }
  }
  for (int t = 0; t < Tokens; t++) {
    bool poisoned = false;
    for (int lane = 0; lane < 8; lane++) poisoned |= nan[t][lane] != 0;
    packed.poison[t] = poisoned ? __builtin_nanf("") : 0;
  }
  return packed;
}

/// sums += the products of a run's words with its activations.
template <int Tokens, int Digits>
FIREQ_INLINE void addRun(const uint32_t* words, int32_t count, const Run& run, VU (&sums)[Tokens][kParts]) {
  const VU nibbles = splatU(0x0f0f0f0fu);
  const uint32_t* digits = run.digits;
  VU partial[Tokens][Digits][kParts] = {};
  for (int32_t w = 0; w < count; w++, words += kTile, digits += Tokens * Digits * 2) {
    VU low[kParts], high[kParts];
    prefetchWeights(words);
    for (int p = 0; p < kParts; p++) {
      const VU word = load<VU>(words + p * kWidth);
      low[p] = word & nibbles;
      high[p] = word >> 4 & nibbles;
    }
#pragma GCC unroll 4
    for (int t = 0; t < Tokens; t++) {
#pragma GCC unroll 3
      for (int d = 0; d < Digits; d++) {
        const VU lowX = splatU(digits[(t * Digits + d) * 2]), highX = splatU(digits[(t * Digits + d) * 2 + 1]);
        for (int p = 0; p < kParts; p++) {
          const VU both = addHalves(dotBytes(low[p], lowX), dotBytes(high[p], highX));
          partial[t][d][p] = addHalves(partial[t][d][p], both);
        }
      }
    }
  }
  const VU places[kMaxDigits] = {splatU(0x00010001u), splatU(0x00800080u), splatU(0x40004000u)};  // 1, 128, 128²
  for (int t = 0; t < Tokens; t++) {
    for (int p = 0; p < kParts; p++) {
      VU sum{};
      for (int d = 0; d < Digits; d++) sum += dotHalves(partial[t][d][p], places[d]);
      sums[t][p] += sum << run.shift;
    }
  }
}

template <int Tokens>
void integerTile(const Weight& weight, int64_t tile, const PackedDigits& x, const Epilogue& epilogue) {
  const uint32_t* words = weight.words(tile);
  const float* scales = weight.scales(tile);
  const Block* blocks = weight.blockData();
  const Run* run = x.runs;
  Row16 totals[Tokens] = {};
  for (int64_t b = 0; b < weight.blockCount(); b++) {
    VU sums[Tokens][kParts];
    for (int t = 0; t < Tokens; t++) {
      for (int p = 0; p < kParts; p++) sums[t][p] = splatU(static_cast<uint32_t>(x.starts[b * Tokens + t]));
    }
    for (int32_t first = 0; first < blocks[b].words; first += kRunWords, run++) {
      const int32_t count = std::min(kRunWords, blocks[b].words - first);
      const uint32_t* at = words + static_cast<int64_t>(blocks[b].word + first) * kTile;
      if (run->count == 2) {
        addRun<Tokens, 2>(at, count, *run, sums);
      } else {
        addRun<Tokens, kMaxDigits>(at, count, *run, sums);
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
  const PackedDigits packed = packDigits<Tokens>(ctx, x, weight);
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
