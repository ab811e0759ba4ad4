// What attention_store.cuh writes of a head's key or value: codes as kv_layout.cuh lays them out. Four lanes have a head, see Channels.
#pragma once
#include <cstdint>

#include "attention_store_round.cuh"
#include "kv_layout.cuh"

namespace fireq::store {

/// Whole numbers of a lane's channels, as INT4 packs them: adding 1.5 · 2²³ rounds, and leaves the code without its zero point in the low
/// bits. A word of codes is a sum of these shifted, less what the other bits come to.
template <int kHeadDim>
struct Int4Codes {
  uint32_t bits[Channels<kHeadDim>::kCount];
  uint32_t zero;

  __device__ __forceinline__ Int4Codes(const Channels<kHeadDim>& c, float zeroPoint) : zero(static_cast<uint32_t>(zeroPoint)) {
#pragma unroll
    for (int i = 0; i < Channels<kHeadDim>::kCount; i++) bits[i] = __float_as_uint(__fadd_rn(c.x[i], 12582912.f));
  }

  /// kCodes codes, kBits apart; code i is channel at(i).
  template <int kCodes, int kBits, class At>
  __device__ __forceinline__ uint32_t word(At at) const {
    uint32_t sum = bits[at(kCodes - 1)], ones = 1, others = 0x4b400000u;
#pragma unroll
    for (int i = kCodes - 2; i >= 0; i--) {
      sum = (sum << kBits) + bits[at(i)];
      ones = ones << kBits | 1, others = (others << kBits) + 0x4b400000u;
    }
    return sum + (zero * ones - others);
  }
};

/// A token's half of two words of values, n and n + 1 (n even): what these have of the token.
template <KvFormat kFormat, int kHeadDim>
struct ValueHalves {
  using Layout = KvLayout<kFormat, kHeadDim>;
  static constexpr int kColumns = Layout::kIsInt4 && kHeadDim == 64 ? 2 : 4;                     // c of kv_layout.cuh
  static constexpr int kParts = Layout::kIsInt4 ? 1 : kHeadDim / (kFormat == KvFormat::kE4m3 ? 64 : 32);  // h
  static constexpr int kPairs = 4 * kParts * kColumns / 4;                                        // that a lane has
  uint32_t pairs[kPairs];

  /// Where pair `k` of lane b begins among the values of a block, for a token in it.
  __device__ __forceinline__ static int offset(int k, int b, int token) {
    const int l = token % 8 / 2, part = k / 4, m = kColumns == 4 ? k % 4 : 2 * k + b / 2;
    return ((token / 8 * kParts + part) * 4 + l) * 32 * kColumns + (m ^ l) * 8 * kColumns + b % kColumns * 4;
  }
  /// The word of both tokens' halves of n, or of n + 1.
  __device__ __forceinline__ static uint32_t join(uint32_t even, uint32_t odd, bool second) {
    if constexpr (kFormat == KvFormat::kE4m3) return __byte_perm(even, odd, second ? 0x7362 : 0x5140);
    return __byte_perm(even, odd, second ? 0x7632 : 0x5410);
  }
};

/// A head's key or value, rounded. `scale`: its half of the token's word.
template <KvFormat kFormat, int kHeadDim>
struct Rounded;

template <int kHeadDim, bool kSymmetric>
struct RoundedInt4 {
  static constexpr KvFormat kFormat = kSymmetric ? KvFormat::kInt4Symmetric : KvFormat::kInt4Asymmetric;
  using Halves = ValueHalves<kFormat, kHeadDim>;
  static constexpr int kGranules = Channels<kHeadDim>::kGranules;
  Int4Codes<kHeadDim> codes;
  uint32_t scale;

  __device__ __forceinline__ explicit RoundedInt4(Channels<kHeadDim>& c) : codes(c, divide(c, scale)) {}

  /// → the zero point
  __device__ __forceinline__ static float divide(Channels<kHeadDim>& c, uint32_t& word) {
    if constexpr (kSymmetric) {
      word = divideByBf16<7>(c);  // to at most 7.03
      return 8.f;
    }
    const float low = c.over(SmallerOrNan()), high = c.over(LargerOrNan()), range = __fsub_rn(high, low);
    const uint32_t byte = max(packE4m3(dividedBy<15>(range), 0.f) & 0xffu, 1u);  // positive numbers order as their bytes
    uint32_t halves;
    asm("{.reg .b16 b;\ncvt.u16.u32 b, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(byte));
    const Reciprocal by(ptx::unpackHalf(halves).x);
    const float zero = rintf(fminf(by(-low), 15.f));
    word = range < kInfinity ? byte | static_cast<uint32_t>(zero) << 8 : 0x007fu;  // NaN
#pragma unroll
    for (int i = 0; i < Channels<kHeadDim>::kCount; i++) c.x[i] = fminf(fmaxf(by(c.x[i]), -zero), 15.f - zero);
    return zero;
  }

  /// `block`: of the key's page and head. Lane j has nibbles j and 4 + j of all words, and gets the words with l = j, which follow each other.
  __device__ __forceinline__ void storeKey(uint8_t* block, int token, bool stores) const {
    const int b = threadIdx.x % kLanes;
    const bool odd = b & 1, upper = b & 2;
    constexpr uint32_t kLow = 0x0f0f0f0fu, kHigh = 0xf0f0f0f0u;
    uint32_t mine[4];  // by l: byte 2s + e, low nibbles s = 0, 1, high nibbles s = 2, 3
#pragma unroll
    for (int l = 0; l < 4; l++) {
      if constexpr (kGranules == 4)
        mine[l] = codes.template word<8, 4>([l](int i) { return 8 * (i / 4 + 2 * (i % 2)) + 2 * l + i / 2 % 2; });
      else
        mine[l] = codes.template word<4, 8>([l](int i) { return 8 * (i / 2) + 2 * l + i % 2; });
    }
    uint32_t pairs[2][2];  // l / 2, s / 2: bytes 2s + e of two js
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const uint32_t own = odd ? mine[2 * h + 1] : mine[2 * h];
      const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? mine[2 * h] : mine[2 * h + 1], 1);
      const uint32_t first = odd ? other : own, second = odd ? own : other;
      pairs[h][0] = first & kLow | second << 4 & kHigh, pairs[h][1] = first >> 4 & kLow | second & kHigh;
    }
    uint32_t words[kGranules];
#pragma unroll
    for (int h = 0; h < kGranules / 2; h++) {
      const uint32_t own = upper ? pairs[1][h] : pairs[0][h];
      const uint32_t other = __shfl_xor_sync(kAllLanes, upper ? pairs[0][h] : pairs[1][h], 2);
      words[2 * h] = __byte_perm(own, other, upper ? 0x1504 : 0x5140);
      words[2 * h + 1] = __byte_perm(own, other, upper ? 0x3726 : 0x7362);
    }
    if (!stores) return;
    uint8_t* const to = block + token * (kHeadDim / 2) + b * (kGranules * 4);
    if constexpr (kGranules == 4)
      *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
    else
      *reinterpret_cast<uint2*>(to) = make_uint2(words[0], words[1]);
  }

  /// With heads of 64, lanes b and b + 2 have every other nibble of the same words: each gets half of the words.
  __device__ __forceinline__ Halves halves() const {
    Halves result;
    if constexpr (kGranules == 4) {
#pragma unroll
      for (int m = 0; m < 4; m++) result.pairs[m] = codes.template word<8, 4>([m](int i) { return 8 * (i % 4) + 2 * m + i / 4; });
    } else {
      const bool upper = threadIdx.x & 2;
      constexpr uint32_t kLow = 0x0f0f0f0fu, kHigh = 0xf0f0f0f0u;
      uint32_t mine[4];
#pragma unroll
      for (int m = 0; m < 4; m++) mine[m] = codes.template word<4, 8>([m](int i) { return 8 * (i % 2) + 2 * m + i / 2; });
      // Even ms for the lower lane, odd ones for the upper.
      const uint32_t others = __shfl_xor_sync(kAllLanes, upper ? mine[0] | mine[2] << 4 : mine[1] | mine[3] << 4, 2);
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const uint32_t own = upper ? mine[2 * k + 1] : mine[2 * k], other = (k ? others >> 4 : others) & kLow;
        result.pairs[k] = upper ? own << 4 & kHigh | other : own | other << 4;
      }
    }
    return result;
  }
};

template <int kHeadDim>
struct Rounded<KvFormat::kInt4Symmetric, kHeadDim> : RoundedInt4<kHeadDim, true> {
  using RoundedInt4<kHeadDim, true>::RoundedInt4;
};
template <int kHeadDim>
struct Rounded<KvFormat::kInt4Asymmetric, kHeadDim> : RoundedInt4<kHeadDim, false> {
  using RoundedInt4<kHeadDim, false>::RoundedInt4;
};

template <int kHeadDim>
struct Rounded<KvFormat::kE4m3, kHeadDim> {
  using Halves = ValueHalves<KvFormat::kE4m3, kHeadDim>;
  static constexpr int kGranules = Channels<kHeadDim>::kGranules;
  uint2 codes[kGranules];
  uint32_t scale;

  __device__ __forceinline__ explicit Rounded(Channels<kHeadDim>& c) {
    scale = divideByBf16<448>(c);
#pragma unroll
    for (int g = 0; g < kGranules; g++) codes[g] = packGranule(c.x + 8 * g);
  }

  __device__ __forceinline__ void storeKey(uint8_t* block, int token, bool stores) const {
    if (!stores) return;
#pragma unroll
    for (int g = 0; g < kGranules; g++)
      *reinterpret_cast<uint2*>(block + (g / 2 * kKvBlockTokens + token) * 64 + g % 2 * 32 + threadIdx.x % kLanes * 8) = codes[g];
  }

  __device__ __forceinline__ Halves halves() const {
    Halves result;
#pragma unroll
    for (int k = 0; k < Halves::kPairs; k++) {
      const uint2 first = codes[k / 4 * 2], second = codes[k / 4 * 2 + 1];
      result.pairs[k] = __byte_perm(k % 4 < 2 ? first.x : first.y, k % 4 < 2 ? second.x : second.y, k % 2 ? 0x7362 : 0x5140);
    }
    return result;
  }
};

template <int kHeadDim>
struct Rounded<KvFormat::kBf16, kHeadDim> {
  using Halves = ValueHalves<KvFormat::kBf16, kHeadDim>;
  static constexpr int kGranules = Channels<kHeadDim>::kGranules;
  Halves rounded;  // pair 4g + m: channels 2m and 2m + 1 of granule g
  uint32_t scale = 0;

  __device__ __forceinline__ explicit Rounded(const Channels<kHeadDim>& c) {
#pragma unroll
    for (int i = 0; i < Halves::kPairs; i++) rounded.pairs[i] = ptx::packBf16(c.x[2 * i], c.x[2 * i + 1]);
  }

  __device__ __forceinline__ void storeKey(uint8_t* block, int token, bool stores) const {
    if (!stores) return;
#pragma unroll
    for (int g = 0; g < kGranules; g++) {
      const uint32_t* from = rounded.pairs + 4 * g;
      *reinterpret_cast<uint4*>(block + ((g * kKvBlockTokens + token) * 4 + threadIdx.x % kLanes) * 16) = make_uint4(from[0], from[1], from[2], from[3]);
    }
  }

  __device__ __forceinline__ Halves halves() const { return rounded; }
};

/// The values of two tokens that are neighbours in the cache, the first with an even place: neighbouring lanes store whole words, lane b
/// those with n % 2 = b % 2 of two cs. `values`: of the block.
template <KvFormat kFormat, int kHeadDim>
__device__ __forceinline__ void storeValues(const ValueHalves<kFormat, kHeadDim>& even, const ValueHalves<kFormat, kHeadDim>& odd, uint8_t* values, int token, bool stores) {
  using Halves = ValueHalves<kFormat, kHeadDim>;
  const int b = threadIdx.x % kLanes;
  const bool second = b & 1;
#pragma unroll
  for (int k = 0; k < Halves::kPairs; k++) {
    const uint32_t own = Halves::join(even.pairs[k], odd.pairs[k], second);
    const uint32_t other = __shfl_xor_sync(kAllLanes, Halves::join(even.pairs[k], odd.pairs[k], !second), 1);
    uint8_t* const to = values + Halves::offset(k, b & ~1, token) + second * 4 * Halves::kColumns;
    if (stores) *reinterpret_cast<uint2*>(to) = second ? make_uint2(other, own) : make_uint2(own, other);
  }
}

/// One token's values: its half of each word.
template <KvFormat kFormat, int kHeadDim>
__device__ __forceinline__ void storeValue(const ValueHalves<kFormat, kHeadDim>& halves, uint8_t* values, int token) {
  using Halves = ValueHalves<kFormat, kHeadDim>;
#pragma unroll
  for (int n = 0; n < 2 * Halves::kPairs; n++) {
    const uint32_t half = halves.pairs[n / 2] >> 16 * (n % 2);
    uint8_t* const to = values + Halves::offset(n / 2, threadIdx.x % kLanes, token) + n % 2 * 4 * Halves::kColumns;
    if constexpr (kFormat == KvFormat::kE4m3)
      to[token % 2] = static_cast<uint8_t>(half), to[token % 2 + 2] = static_cast<uint8_t>(half >> 8);
    else
      *reinterpret_cast<uint16_t*>(to + token % 2 * 2) = static_cast<uint16_t>(half);
  }
}

}  // namespace fireq::store
