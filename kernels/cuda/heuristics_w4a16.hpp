// Which kernel of gemm_w4a16.cu multiplies BF16 [M, K] activations by an INT4 [N, K] weight, and how the work is cut.
// Plain host code, no CUDA.
#pragma once
#include "heuristics.hpp"

namespace fireq {

namespace detail {

/// More than 16 tokens. Measured on an H200, as heuristics.hpp has them.
constexpr Candidate kW4a16Candidates[] = {
    {GemmFamily::kSmall, 128, 32, 1, 2, 6, 0.65, 2.7, 1.1},  {GemmFamily::kSmall, 192, 32, 1, 1, 6, 0.50, 2.9, 1.5},
    {GemmFamily::kSmall, 128, 64, 1, 2, 6, 0.87, 3.0, 1.8},  {GemmFamily::kSmall, 192, 64, 1, 1, 6, 0.64, 3.6, 2.0},
    {GemmFamily::kSmall, 128, 128, 1, 1, 6, 0.733, 1.5, 3.5}, {GemmFamily::kSmall, 192, 128, 1, 1, 6, 1.07, 2.5, 4.0},
    {GemmFamily::kLarge, 128, 256, 2, 1, 1, 1.448, 0.3, 0.0},
};

}  // namespace detail

/// The kernel is w4a16_<small|large>_f<features>_t<tokens>_…; M ≥ 0, N a multiple of 16, K of 128.
inline GemmChoice chooseW4a16(int m, int n, int k, int sms) {
  if (m <= 0) return {};
  if (m <= 16)  // reading the weights is nearly all the time there is
    return {GemmFamily::kSmall, 128, m <= 8 ? 8 : 16, detail::splitForBandwidth(detail::ceilDivide(n, 128), k / 128, sms, 5), 0};
  GemmChoice best;
  double bestTime = 1e300;
  for (const detail::Candidate& c : detail::kW4a16Candidates)
    for (int split = 1; split <= std::min({c.maxSplit, k / 128, sms}); split++) {
      const double time = detail::estimate(c, m, n, k, sms, split);
      if (time < bestTime) {
        bestTime = time;
        best = {c.family, c.features, c.tokens, split, c.family == GemmFamily::kLarge ? 8 : 0};
      }
    }
  return best;
}

}  // namespace fireq
