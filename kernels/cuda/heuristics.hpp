// Which kernel multiplies an [M, K] activation by an [N, K] weight, and how the work is cut. Plain host code, no CUDA.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace fireq {

enum class GemmFamily { kNone, kSmall, kLarge };

/// The kernel is i4_<small|large>_f<features>_t<tokens>_…
struct GemmChoice {
  GemmFamily family = GemmFamily::kNone;
  int features = 0;  // output features a block
  int tokens = 0;    // tokens a block
  int split = 1;     // small: parts of K, one block each, summed within a cluster
  int sweep = 0;     // large: token tiles that a sweep over the features keeps in the L2
  int clusters = 0;  // large: pairs of blocks that share the work
  int cut = 0;       // large: tiles that are cut among them, the other ones being taken whole (share.cuh)
};

namespace detail {

constexpr int ceilDivide(int a, int b) { return (a + b - 1) / b; }

/// A tile shape with times fitted to those of several runs on an H200, which cuBLASLt's of the same runs bring to one
/// scale: µs a group of K, µs a tile beside its groups, µs to add up the parts of K (large: a part that a cluster leaves to
/// another one or takes from it), µs more if they are an odd number.
struct Candidate {
  GemmFamily family;
  int features, tokens, cluster, perSm, maxSplit;
  double groupTime, tileTime, sumTime, oddTime = 0;
};

// More than 32 tokens: the time is a multiplication's, and the shape that fills the SMs in the fewest rounds wins.
constexpr Candidate kCandidates[] = {
    {GemmFamily::kSmall, 128, 64, 1, 2, 6, 0.536, 1.74, 2.4}, {GemmFamily::kSmall, 192, 64, 1, 1, 6, 0.41, 2.75, 0.5, 1.1},
    {GemmFamily::kSmall, 256, 64, 1, 1, 1, 0.52, 1.9, 0},     {GemmFamily::kSmall, 128, 128, 1, 1, 6, 0.45, 3.0, 0.7},
    {GemmFamily::kSmall, 192, 128, 1, 1, 6, 0.601, 5.04, 0.3}, {GemmFamily::kSmall, 256, 128, 1, 1, 6, 0.780, 6.35, 0.3},
};
constexpr Candidate kLargeCandidates[] = {
    {GemmFamily::kLarge, 128, 128, 2, 1, 1, 0.48, 2.5, 2.3},
    {GemmFamily::kLarge, 128, 256, 2, 1, 1, 0.75, 3.6, 3.6},
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
  return rounds * (ceilDivide(k / 128, split) * c.groupTime + c.tileTime) + (split > 1 ? c.sumTime + split % 2 * c.oddTime : 0);
}

/// How `clusters` clusters divide `tiles` tiles of `groups` groups, `cut` of them cut: groups and tiles that the busiest one
/// adds up, and parts of tiles that it leaves or takes.
struct Division {
  double groups = 0, tiles = 0;
  int parts = 0;
};

inline Division divide(int tiles, int groups, int clusters, int cut) {
  Division d;
  const int64_t total = static_cast<int64_t>(cut) * groups;
  const int rounds = ceilDivide(tiles - cut, clusters);
  for (int c = 0; c < clusters && cut > 0; c++) {
    const int64_t begin = total * c / clusters, end = total * (c + 1) / clusters;
    d.groups = std::max(d.groups, static_cast<double>(end - begin));
    d.tiles = std::max(d.tiles, static_cast<double>(end / groups - begin / groups));
    d.parts = std::max(d.parts, static_cast<int>(begin % groups != 0) + static_cast<int>(end % groups != 0));
  }
  d.groups += static_cast<double>(rounds) * groups, d.tiles += rounds;
  return d;
}

inline void chooseLarge(int m, int n, int k, int sms, GemmChoice& best, double& bestTime) {
  for (const Candidate& c : kLargeCandidates) {
    const int tiles = ceilDivide(n, c.features * c.cluster) * ceilDivide(m, c.tokens), groups = k / 128;
    const int most = std::max(1, sms / c.cluster);
    // A few clusters less than fit may cut the tiles into fewer parts.
    for (int clusters = most; clusters >= std::max(1, most - most / 16); clusters--)
      for (bool whole : {true, false}) {
        const int at = static_cast<int>(std::min<int64_t>(clusters, whole ? tiles : static_cast<int64_t>(tiles) * groups));
        const int cut = whole || tiles % at == 0 ? 0 : tiles < at ? tiles : tiles % at + at;
        const Division d = divide(tiles, groups, at, cut);
        const double time = d.groups * c.groupTime + d.tiles * c.tileTime + d.parts * c.sumTime;
        if (time >= bestTime) continue;
        bestTime = time;
        best = {c.family, c.features, c.tokens, 1, 8, at, cut};
      }
  }
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
    // Tiles of 128 features would be two on some SMs and one on others.
    if (tokens > 8 && detail::ceilDivide(n, 128) > sms && detail::ceilDivide(n, 192) <= sms) return {GemmFamily::kSmall, 192, tokens, 1};
    const int split = detail::splitForBandwidth(detail::ceilDivide(n, 128), k / 128, sms, 8);
    return {GemmFamily::kSmall, 128, tokens, split};
  }
  GemmChoice best;
  double bestTime = 1e300;
  for (const detail::Candidate& c : detail::kCandidates)
    for (int split = 1; split <= std::min({c.maxSplit, k / 128, sms}); split++) {
      const double time = detail::estimate(c, m, n, k, sms, split);
      if (time < bestTime) {
        bestTime = time;
        best = {c.family, c.features, c.tokens, split};
      }
    }
  detail::chooseLarge(m, n, k, sms, best, bestTime);
  return best;
}

}  // namespace fireq
