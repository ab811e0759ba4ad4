#pragma once

// What several ops do to a row of FP32 values.

#include <cmath>

#include "../simd/convert.h"
#include "../simd/math.h"

namespace fireq::FIREQ_ISA {

/// Calls body(i) for whole vectors, then tail(i) for what is left.
template <class Body, class Tail>
FIREQ_INLINE void forVectors(int64_t count, Body&& body, Tail&& tail) {
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) body(i);
  for (; i < count; i++) tail(i);
}

/// out = x / √(mean(x²) + eps) · weight.
inline void normalizeRow(const float* x, const float* weight, int64_t count, float eps, float* out) {
  Row16 partial{};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const Row16 v = load16(x + i);
    for (int p = 0; p < kParts; p++) partial.part[p] = fma(v.part[p], v.part[p], partial.part[p]);
  }
  float sum = sum16(partial);
  for (; i < count; i++) sum += x[i] * x[i];
  const float factor = 1 / std::sqrt(sum / static_cast<float>(count) + eps);
  forVectors(
      count, [&](int64_t k) { store(out + k, load<VF>(x + k) * factor * load<VF>(weight + k)); },
      [&](int64_t k) { out[k] = x[k] * factor * weight[k]; });
}

/// out = silu(gate)·up; gateUp holds the gate's values, then up's.
inline void siluMulRow(const float* gateUp, int64_t count, float* out) {
  const auto silu = [](VF g) { return g / (exp(-g) + 1.0f); };
  forVectors(
      count,
      [&](int64_t i) { store(out + i, silu(load<VF>(gateUp + i)) * load<VF>(gateUp + count + i)); },
      [&](int64_t i) { out[i] = silu(splat(gateUp[i]))[0] * gateUp[count + i]; });
}

inline void roundRowToBf16(float* x, int64_t count) {
  forVectors(
      count,
      [&](int64_t i) { store(x + i, asF(toBf16(load<VF>(x + i)) << 16)); }, [&](int64_t i) { x[i] = bf16ToF32(f32ToBf16(x[i])); });
}

/// FP8 of one group: returns s = max|x|/448 (1 for zeros, 2⁻¹²⁶ at least) and writes E4M3(x/s). Bit for bit the
/// reference's: every step is exact or rounds once.
inline float quantizeGroup(const float* x, int64_t count, uint8_t* out) {
  VF best{};
  float largest = 0;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) best = max(abs(load<VF>(x + i)), best);
  for (; i < count; i++) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  for (int lane = 0; lane < kWidth; lane++) largest = best[lane] > largest ? best[lane] : largest;
  const float wide = largest / 448;
  const float scale = largest == 0 ? 1 : wide < 0x1p-126f ? 0x1p-126f : wide;
  forVectors(
      count, [&](int64_t k) { storeBytes(out + k, toE4m3(load<VF>(x + k) / scale)); },
      [&](int64_t k) { out[k] = f32ToE4m3(x[k] / scale); });
  return scale;
}

}  // namespace fireq::FIREQ_ISA
