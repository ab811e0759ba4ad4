// Which kernel of gemm_w4a16.cu multiplies BF16 [M, K] activations by an INT4 [N, K] weight, and how the work is cut.
// Plain host code, no CUDA.
#pragma once
#include "heuristics.hpp"

namespace fireq {

namespace detail {

/// With the times measured for them on an H200, as heuristics.hpp has them.
constexpr Candidate kW4a16Candidates[] = {
    {GemmFamily::kSmall, 128, 64, 1, 2, 8, 0.54, 2.0, 1.0},
    {GemmFamily::kSmall, 128, 128, 1, 1, 6, 0.62, 3.5, 1.5},
    {GemmFamily::kSmall, 192, 128, 1, 1, 6, 0.92, 4.5, 1.5},
    {GemmFamily::kLarge, 128, 256, 2, 1, 1, 1.20, 2.0, 0.0},
};

}  // namespace detail

/// The kernel is w4a16_<small|large>_f<features>_t<tokens>_…; M ≥ 0, N a multiple of 16, K of 128.
inline GemmChoice chooseW4a16(int m, int n, int k, int sms) {
  if (m <= 0) return {};
  if (m <= 32) {  // the smallest token tile that holds all tokens: reading the weights is all the time there is
    const int tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
    return {GemmFamily::kSmall, 128, tokens, detail::splitForBandwidth(detail::ceilDivide(n, 128), k / 128, sms, 8), 0};
  }
  GemmChoice best;
  double bestTime = 1e300;
  for (const detail::Candidate& c : detail::kW4a16Candidates)
    for (int split = 1; split <= std::min({c.maxSplit, k / 128, sms, 6}); split++) {
      const double time = detail::estimate(c, m, n, k, sms, split);
      if (time < bestTime) {
        bestTime = time;
        best = {c.family, c.features, c.tokens, split, c.family == GemmFamily::kLarge ? 8 : 0};
      }
    }
  return best;
}

}  // namespace fireq
