// A problem for the GEMMs with INT4 weights, with random numbers, packed as their kernels take it, and its exact result.
#pragma once
#include "epilogue.cuh"
#include "int4.cuh"
#include "ptx.cuh"

namespace fireq {

enum class Activations { kE4m3, kBf16 };

inline float fromBf16(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }

struct GemmProblem {
  int tokens, features, depth;
  bool hasBias, hasResidual, isSilu, isFull;  // isFull: codes from −8 on, else from −7
  Activations activations;
  int scaleBytes;
  int groupSize = kGroupSize;  // that has a scale; a block of the packed weights has 128 of K in any case

  int groups = depth / groupSize;
  std::vector<int> codes;
  std::vector<float> scales, tokenScale;
  std::vector<uint8_t> x8;  // or
  std::vector<uint16_t> x16, bias, residual;

  /// Draws the numbers.
  void fill();

  int columns() const { return isSilu ? features / 2 : features; }
  float activation(int token, int k) const {
    const size_t at = size_t(token) * depth + k;
    return activations == Activations::kE4m3 ? ptx::e4m3ToFloat(x8[at]) : fromBf16(x16[at]);
  }
  EpilogueOperands operands() const { return {hasBias ? bias.data() : nullptr, hasResidual ? residual.data() : nullptr}; }

  /// Blocks of 64 rows × 128 columns as int4.cuh or int4_bf16.cuh says; rows beyond the last as zeros.
  std::vector<uint8_t> pack() const;
  /// ‖out − exact‖ / ‖exact‖. Rounding to BF16 alone has 1.65e-3.
  double error(const std::vector<uint16_t>& out) const;

 private:
  void putForE4m3(uint8_t* block, int r, int k, int code) const;
  static void putForBf16(uint8_t* block, int r, int k, int code);
  std::vector<double> exact(int token) const;
};

/// Room for a result: NaNs, and some behind it that must stay.
struct GemmResult {
  static constexpr uint16_t kPoison = 0x7fc1;
  std::vector<uint16_t> out;
  size_t count;

  explicit GemmResult(const GemmProblem& p) : out(size_t(p.tokens) * p.columns() + 64, kPoison), count(out.size() - 64) {}
  void checkBehind() const {
    for (size_t i = count; i < out.size(); i++)
      if (out[i] != kPoison) emulation::fail("something behind the result");
  }
};

}  // namespace fireq
