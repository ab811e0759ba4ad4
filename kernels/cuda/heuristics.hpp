// Which kernel multiplies an [M, K] activation by an [N, K] weight, and how the work is cut. Plain host code, no CUDA.
#pragma once
#include <algorithm>
#include <cmath>

namespace fireq {

enum class GemmFamily { kNone, kSmall, kLarge };

/// The kernel is i4_<small|large>_f<features>_t<tokens>_…
struct GemmChoice {
  GemmFamily family = GemmFamily::kNone;
  int features = 0;  // output features a block
  int tokens = 0;    // tokens a block
  int split = 1;     // small: parts of K, one block each, summed within a cluster
  int sweep = 0;     // large: token tiles that a sweep over the features keeps in the L2
};

namespace detail {

constexpr int ceilDivide(int a, int b) { return (a + b - 1) / b; }

/// A tile shape with the times measured for it on an H200: µs a group of K, µs a tile beside its groups, µs to add up
/// the parts of K.
struct Candidate {
  GemmFamily family;
  int features, tokens, cluster, perSm, maxSplit;
  double groupTime, tileTime, sumTime;
};

// More than 32 tokens: the time is a multiplication's, and the shape that fills the SMs in the fewest rounds wins. The
// large kernels' tiles follow each other without a pause, so a tile of theirs costs little beside its groups.
constexpr Candidate kCandidates[] = {
    {GemmFamily::kSmall, 128, 64, 1, 2, 6, 0.536, 1.74, 2.15},  {GemmFamily::kSmall, 192, 64, 1, 1, 6, 0.368, 3.86, 0.54},
    {GemmFamily::kSmall, 128, 128, 1, 1, 6, 0.360, 3.22, 0.84}, {GemmFamily::kSmall, 192, 128, 1, 1, 6, 0.530, 4.24, 0.81},
    {GemmFamily::kSmall, 256, 128, 1, 1, 6, 0.629, 5.95, 0.67}, {GemmFamily::kLarge, 128, 128, 2, 1, 1, 0.432, 0.44, 0.0},
    {GemmFamily::kLarge, 128, 256, 2, 1, 1, 0.670, 0.60, 0.0},
};

/// Blocks that run at once on an H200's 132 SMs when they come in clusters of 1, 2, …, as the driver tells: a cluster lies
/// within a GPC of about 16 SMs, so clusters of three and more leave some SMs out.
constexpr int kBlocksAtOnce[] = {132, 132, 117, 120, 110, 102};

constexpr int slots(const Candidate& c, int sms, int split) {
  return std::max(split, kBlocksAtOnce[split - 1] * sms / 132 * c.perSm);
}

inline double estimate(const Candidate& c, int m, int n, int k, int sms, int split) {
  const int featureTiles = ceilDivide(n, c.features * c.cluster) * c.cluster;
  const double blocks = static_cast<double>(featureTiles) * ceilDivide(m, c.tokens) * split;
  const double rounds = std::ceil(blocks / slots(c, sms, split));
  return rounds * (ceilDivide(k / 128, split) * c.groupTime + c.tileTime) + (split > 1 ? c.sumTime : 0);
}

/// Parts of K for few tokens: about three blocks for two SMs. Fewer leave SMs idle; more leave no room for the next
/// kernel's blocks to fetch ahead. A part of fewer groups than `atLeast` costs more to add up than it saves.
inline int splitForBandwidth(int tiles, int groups, int sms, int atLeast) {
  const int fill = sms * 3 / 2 / std::max(tiles, 1);
  return std::max(1, std::min({fill, groups / atLeast, 8}));
}

}  // namespace detail

/// M ≥ 0; N a multiple of 16, K of 128; sms: multiprocessors of the device. M = 0 launches nothing.
inline GemmChoice chooseGemm(int m, int n, int k, int sms) {
  if (m <= 0) return {};
  if (m <= 32) {  // the smallest token tile that holds all tokens: reading the weights is all the time there is
    const int tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
    const int split = detail::splitForBandwidth(detail::ceilDivide(n, 128), k / 128, sms, 8);
    return {GemmFamily::kSmall, 128, tokens, split, 0};
  }
  GemmChoice best;
  double bestTime = 1e300;
  for (const detail::Candidate& c : detail::kCandidates)
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
