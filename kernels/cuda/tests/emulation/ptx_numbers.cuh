// kernels/cuda/ptx_numbers.cuh on the host.
#pragma once
#include "intrinsics.h"

namespace fireq::ptx {

inline float exp2Fast(float x) { return std::exp2(x); }
inline float log2Fast(float x) { return std::log2(x); }
inline float log2FastFtz(float x) { return std::log2(x); }

inline float halfToFloat(uint16_t bits) { return std::bit_cast<_Float16>(bits); }
inline uint16_t floatToHalf(float v) { return std::bit_cast<uint16_t>(static_cast<_Float16>(v)); }
inline uint16_t floatToBf16(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  return static_cast<uint16_t>(std::isnan(v) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float decodeE4m3(int bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float v = exponent ? std::ldexp(8.f + mantissa, exponent - 10) : std::ldexp(static_cast<float>(mantissa), -9);
  return bits & 128 ? -v : v;
}
inline const std::array<float, 256> e4m3Numbers = [] {
  std::array<float, 256> values;
  for (int i = 0; i < 256; i++) values[i] = decodeE4m3(i);
  return values;
}();
inline float e4m3ToFloat(uint8_t bits) { return e4m3Numbers[bits]; }
inline uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

inline float2 unpackHalf(uint32_t v) { return {halfToFloat(v & 0xffff), halfToFloat(v >> 16)}; }
inline uint32_t packHalf(float low, float high) { return pair(floatToHalf(low), floatToHalf(high)); }
inline uint32_t packBf16(float low, float high) { return pair(floatToBf16(low), floatToBf16(high)); }
inline uint32_t multiplyHalves(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return packHalf(x.x * y.x, x.y * y.y);
}
inline uint32_t whereGreaterHalves(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return (x.x > y.x ? 0xffffu : 0) | (x.y > y.y ? 0xffff0000u : 0);
}
template <bool kHigh = false>
uint32_t e4m3ToHalves(uint32_t bytes) {
  if (kHigh) bytes >>= 16;
  return packHalf(e4m3ToFloat(bytes & 255), e4m3ToFloat(bytes >> 8 & 255));
}
inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t all = a | static_cast<uint64_t>(b) << 32;
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) {
    const uint8_t byte = all >> 8 * (selector >> 4 * i & 7);
    const bool sign = selector >> 4 * i & 8;
    v |= static_cast<uint32_t>(sign ? byte & 128 ? 255 : 0 : byte) << 8 * i;
  }
  return v;
}

/// Rounds to nearest, ties to even codes; saturates.
inline uint8_t floatToE4m3(float v) {
  if (std::isnan(v)) return 0x7f;
  const float size = std::fabs(v);
  int code = 0;
  for (int step = 64; step > 0; step /= 2)  // the largest that is no larger, up to 448
    if (code + step <= 126 && e4m3ToFloat(static_cast<uint8_t>(code + step)) <= size) code += step;
  if (code < 126) {
    const float below = size - e4m3ToFloat(static_cast<uint8_t>(code)), above = e4m3ToFloat(static_cast<uint8_t>(code + 1)) - size;
    if (above < below || (above == below && code % 2 == 1)) code++;
  }
  return static_cast<uint8_t>(code | (std::signbit(v) ? 128 : 0));
}
template <class Function>
uint32_t ofHalves(const Function& f, uint32_t a, uint32_t b = 0, uint32_t c = 0) {
  const float2 x = unpackHalf(a), y = unpackHalf(b), z = unpackHalf(c);
  return packHalf(f(x.x, y.x, z.x), f(x.y, y.y, z.y));
}
inline uint32_t addHalves(uint32_t a, uint32_t b) {
  return ofHalves([](float x, float y, float) { return x + y; }, a, b);
}
inline uint32_t maxHalves(uint32_t a, uint32_t b) {
  return ofHalves([](float x, float y, float) { return std::fmax(x, y); }, a, b);
}
inline uint32_t multiplyHalvesRounded(uint32_t a, uint32_t b) { return multiplyHalves(a, b); }
inline uint32_t multiplyAddHalves(uint32_t a, uint32_t b, uint32_t c) {
  return ofHalves([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c);
}
inline uint32_t multiplyAddHalvesSaturated(uint32_t a, uint32_t b, uint32_t c) {
  const auto clamped = [](float x, float y, float z) {
    const float v = std::fma(x, y, z);
    return v > 0 ? std::min(v, 1.f) : 0.f;
  };
  return ofHalves(clamped, a, b, c);
}
inline uint32_t exp2FastHalves(uint32_t a) {
  return ofHalves([](float x, float, float) { return std::exp2(x); }, a);
}
inline uint32_t halvesToE4m3(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return floatToE4m3(x.x) | floatToE4m3(x.y) << 8 | floatToE4m3(y.x) << 16 | static_cast<uint32_t>(floatToE4m3(y.y)) << 24;
}
inline float minOrNan(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }

inline float another(float v) { return v; }
inline float reciprocal(float v) { return 1.f / v; }

inline uint32_t transposeMatrix(uint32_t v) {
  const auto& rows = emulation::meetWarp({v});
  const int row = emulation::lane() / 4, column = emulation::lane() % 4 * 2;
  const auto element = [&](int r, int c) { return static_cast<uint16_t>(rows[r * 4 + c / 2][0] >> c % 2 * 16); };
  return pair(element(column, row), element(column + 1, row));
}

template <bool kBf16>
void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, const uint32_t (&b)[2]) {
  const auto& words = emulation::meetWarp({a0, a1, a2, a3, b[0], b[1]});
  const int g = emulation::lane() / 4, l = emulation::lane() % 4;
  const auto number = [](uint32_t word, int half) {
    const uint16_t bits = static_cast<uint16_t>(word >> 16 * half);
    return kBf16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16) : halfToFloat(bits);
  };
  for (int i = 0; i < 4; i++) {  // row g + 8 (i / 2), column 2l + i % 2
    double sum = d[i];
    for (int k = 0; k < 16; k++) {
      const int from = k % 8 / 2;
      sum += static_cast<double>(number(words[g * 4 + from][k / 8 * 2 + i / 2], k % 2)) *
             number(words[(2 * l + i % 2) * 4 + from][4 + k / 8], k % 2);
    }
    d[i] = static_cast<float>(sum);
  }
}

}  // namespace fireq::ptx
