// The quotients of attention_store_round.cuh on the host, over all mantissas: on the same side of every tie as the rounded ones.
// c++ -O3 -mfma -std=c++17 -Wall quotient_test.cpp -o quotient_test && ./quotient_test
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <initializer_list>

static int failures = 0;

static float fromBits(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}
static uint32_t bitsOf(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}

static void expect(bool holds, const char* what, float scale, float x) {
  if (!holds && failures++ < 20) std::printf("%s: scale %a, x %a\n", what, scale, x);
}

/// Reciprocal::high, from a reciprocal that errs by `ulps`.
static float highOf(float scale, int ulps) {
  float high = fromBits(bitsOf(static_cast<float>(1. / scale)) + ulps);
  high = std::fmaf(high, std::fmaf(-scale, high, 1.f), high);
  return std::fmaf(-scale, high, 1.f) < 0 ? fromBits(bitsOf(high) - 1) : high;
}

static void checkScale(float scale) {
  float high = static_cast<float>(1. / scale);
  if (static_cast<double>(high) * scale > 1) high = fromBits(bitsOf(high) - 1);
  for (int ulps = -1; ulps <= 1; ulps++) expect(highOf(scale, ulps) == high, "1 / scale, rounded down", scale, 0.f);
  const float rest = std::fmaf(-scale, high, 1.f), part = rest * high;
  float low = std::fmaf(std::fmaf(-scale, part, rest), high, part);
  const uint32_t mantissa = bitsOf(scale) & 0x7fffff;
  if ((mantissa & 0x3fffff) == 0x3fffff) low = fromBits(bitsOf(low) + (mantissa & 0x400000 ? 1 : -1));
  expect(low >= 0, "a low part that keeps −0", scale, 0.f);
  // Ties of E4M3 and of whole numbers up to 15.5 are odd numbers up to 31 times a power of two. Quotients grow with x.
  for (int tie = 1; tie < 32; tie += 2) {
    const uint32_t near = bitsOf(static_cast<float>(static_cast<double>(tie) * scale));
    for (int ulps = -2; ulps <= 2; ulps++) {
      const float x = fromBits(near + ulps), exact = x / scale, quotient = std::fmaf(x, high, x * low);
      expect((exact < tie) == (quotient < tie) && (exact > tie) == (quotient > tie), "the side of a tie", scale, x);
    }
  }
}

/// dividedBy
static void checkDivisor(int divisor) {
  const double exact = 1. / divisor;
  const float near = static_cast<float>(exact), high = near > exact ? near * (1 - 0x1p-24f) : near, low = static_cast<float>(exact - high);
  for (uint32_t mantissa = 0; mantissa < 1u << 23; mantissa++) {
    const float x = fromBits(0x3f800000 | mantissa);
    expect(std::fmaf(x, high, x * low) == x / divisor, "x / divisor", divisor, x);
  }
}

int main() {
  for (int divisor : {7, 15, 448}) checkDivisor(divisor);
  for (uint32_t mantissa = 0; mantissa < 1u << 23; mantissa++) checkScale(fromBits(0x3f800000 | mantissa));
  if (failures == 0) std::puts("quotients: all as expected");
  return failures != 0;
}
