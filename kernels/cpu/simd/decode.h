#pragma once

// How each weight format turns a vector of words (lane = output feature) into FP32 values, one per call, in K order.

#include "../core/weight.h"
#include "convert.h"
#include "vec.h"

namespace fireq::FIREQ_ISA {

/// u·2^s for a code u: masking without shifting saves an instruction. The activations carry the inverse factor
/// 2^−s = kInt4Factors[J] (exact), and Σ x·(u − 8) = Σ x·u − 8·Σ x: sums start from −8·Σ x instead of 0.
constexpr float kInt4Factors[8] = {1, 0x1p-8f, 1, 0x1p-8f, 0x1p-4f, 0x1p-12f, 0x1p-4f, 0x1p-12f};
struct DecodeInt4 {
  static constexpr int kPerWord = 8;
  static constexpr bool kOffset = true;
  static constexpr bool kScaled = true;
  template <int J>
  FIREQ_INLINE static VF value(VU word, VF) {
    constexpr int kShift = nibbleShift(J);
    return toF((kShift < 16 ? word : word >> 16) & (15u << kShift % 16));
  }
};

/// E4M3((u − 8)·σ), as a kernel computes that looks products up in a table of FP8 numbers.
struct DecodeInt4Lookup {
  static constexpr int kPerWord = 8;
  static constexpr bool kOffset = false;
  static constexpr bool kScaled = false;
  template <int J>
  FIREQ_INLINE static VF value(VU word, VF scale) {
    return roundE4m3((toF(word >> nibbleShift(J) & 15u) - 8.0f) * scale);
  }
};

struct DecodeBf16 {
  static constexpr int kPerWord = 2;
  static constexpr bool kOffset = false;
  static constexpr bool kScaled = false;
  template <int J>
  FIREQ_INLINE static VF value(VU word, VF) {
    return asF(J == 0 ? word << 16 : word & 0xffff0000u);
  }
};

struct DecodeF16 {
  static constexpr int kPerWord = 2;
  static constexpr bool kOffset = false;
  static constexpr bool kScaled = false;
  template <int J>
  FIREQ_INLINE static VF value(VU word, VF) {
    const VU bits = J == 0 ? word << 16 : word & 0xffff0000u;
    const VU magnitude = (bits & 0x7fff0000u) >> 3;
    const VU finite = asU(asF(magnitude) * 0x1p112f);
    const VU special = magnitude | 0x7f800000u;
    return asF((asI(magnitude) >= 0x0f800000 ? special : finite) | (bits & 0x80000000u));
  }
};

struct DecodeF32 {
  static constexpr int kPerWord = 1;
  static constexpr bool kOffset = false;
  static constexpr bool kScaled = false;
  template <int J>
  FIREQ_INLINE static VF value(VU word, VF) {
    return asF(word);
  }
};

/// Calls body(J) for J = 0 … N − 1 with J a compile-time constant.
template <int N, class Body>
FIREQ_INLINE void unrolled(Body&& body) {
  [&]<int... J>(std::integer_sequence<int, J...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, J>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

/// Decodes a block of a tile to panel[k][16].
template <class Decode>
inline void decodePanel(const uint32_t* words, int32_t count, const float* scales, float* panel) {
  for (int p = 0; p < kParts; p++) {
    const VF scale = Decode::kScaled || scales == nullptr ? VF{} : load<VF>(scales + p * kWidth);
    for (int32_t w = 0; w < count; w++) {
      const VU word = load<VU>(words + w * kTile + p * kWidth);
      unrolled<Decode::kPerWord>([&](auto j) __attribute__((always_inline)) {
        store(panel + (w * Decode::kPerWord + j) * kTile + p * kWidth, Decode::template value<j>(word, scale));
      });
    }
  }
}

}  // namespace fireq::FIREQ_ISA
