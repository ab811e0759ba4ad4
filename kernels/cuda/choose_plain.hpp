// Which of the plain kernels (gemm_dense.cuh, gemm_exact.cuh) multiplies an [M, K] activation by an [N, K] weight, and how the
// work is cut. Plain host code, no CUDA.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "heuristics.hpp"

namespace fireq {

enum class PlainFamily { kNone, kPlain, kSmall };

/// The kernel is <kind>_f<features>_t<tokens>…; with kSmall one of gemm_small.cuh's, which promote too.
struct PlainChoice {
  PlainFamily family = PlainFamily::kNone;
  int features = 0;  // output features a block
  int tokens = 0;    // tokens a block
  int split = 1;     // parts of K, one block each, summed within a cluster
  int sweep = 0;     // token tiles that a sweep over the features keeps in the L2
};

namespace detail {

constexpr int kPlainSweep = 8, kMostParts = 8, kFewestSteps = 4;
constexpr double kBytesPerMicrosecond = 4.2e6;  // of weights, when nothing else is in the way

/// A kernel with the times measured for it on an H200 (docs/kernels): µs to begin, µs a step of K (128 bytes of x) and a tile
/// beside its steps on an SM of its own, µs for each part of K to be added up.
struct PlainCandidate {
  const char* kind;
  int features, tokens;
  double startTime, stepTime, tileTime, partTime;
};

constexpr PlainCandidate kPlainCandidates[] = {
    {"i4_exact_g32", 128, 64, 0, 0.44, 4.0, 0.35},     {"i4_exact_g32", 256, 64, 0, 0.73, 5.6, 0.35},
    {"i4_exact_g64", 128, 64, 0, 0.33, 4.2, 0.35},     {"i4_exact_g64", 256, 64, 0, 0.56, 5.6, 0.35},
    {"i4_exact_g128", 128, 64, 0, 0.33, 4.1, 0.35},    {"i4_exact_g128", 256, 64, 0, 0.49, 4.9, 0.35},
    {"i4_exact_lookup", 128, 64, 0, 0.60, 4.1, 0.35},  {"i4_exact_lookup", 128, 128, 0, 0.71, 7.2, 0.35},
    {"e4m3_dense", 128, 16, 2.0, 0.23, 0.2, 0.9},      {"e4m3_dense", 128, 64, 3.7, 0.31, 0.6, 0.9},
    {"e4m3_dense", 128, 256, 0, 0.70, 9.0, 0.9},       {"e4m3_precise", 128, 16, 2.0, 0.23, 0.2, 0.9},
    {"e4m3_precise", 128, 128, 0, 0.45, 4.6, 0.9},     {"bf16_dense", 128, 16, 1.8, 0.22, 0.2, 0.9},
    {"bf16_dense", 128, 64, 3.5, 0.31, 0.2, 0.9},      {"bf16_dense", 128, 256, 2.0, 0.75, 1.0, 0.9},
};

inline bool isBf16(const char* kind) { return std::strncmp(kind, "bf16", 4) == 0; }
inline int stepsOf(const char* kind, int k) { return isBf16(kind) ? k / 64 : k / 128; }
inline double weightBytes(const char* kind, int n, int k) {
  return 1.0 * n * k * (isBf16(kind) ? 2.0 : std::strncmp(kind, "i4", 2) == 0 ? 0.52 : 1.0);
}

/// Blocks that run at once on an H200's 132 SMs in clusters of 1, 2, …, as the driver tells (see heuristics.hpp).
constexpr int kClusteredBlocks[kMostParts] = {132, 132, 117, 120, 110, 102, 105, 120};
inline int plainSlots(int sms, int split) { return std::max(split, kClusteredBlocks[split - 1] * sms / 132); }

inline double plainTime(const PlainCandidate& c, int m, int n, int k, int sms, int split) {
  const double blocks = static_cast<double>(ceilDivide(n, c.features)) * ceilDivide(m, c.tokens) * split;
  const double rounds = std::ceil(blocks / plainSlots(sms, split));
  const double working = rounds * (ceilDivide(stepsOf(c.kind, k), split) * c.stepTime + c.tileTime);
  const double reading = weightBytes(c.kind, n, k) / kBytesPerMicrosecond * 132 / sms;
  return c.startTime + std::max(working, reading) + (split > 1 ? split * c.partTime : 0);
}

}  // namespace detail

/// Is there a kernel of this kind? "i4_exact_<g32|g64|g128|lookup>", "e4m3_<dense|precise>" or "bf16_dense".
inline bool isPlainKind(const char* kind) {
  return std::any_of(std::begin(detail::kPlainCandidates), std::end(detail::kPlainCandidates),
                     [=](const auto& c) { return std::strcmp(c.kind, kind) == 0; });
}

/// M ≥ 0; N a multiple of 16, K of 128; sms: multiprocessors of the device. M = 0 launches nothing.
inline PlainChoice choosePlain(const char* kind, int m, int n, int k, int sms) {
  PlainChoice best;
  if (m <= 0) return best;
  double bestTime = 1e300;
  for (const detail::PlainCandidate& c : detail::kPlainCandidates) {
    if (std::strcmp(c.kind, kind) != 0) continue;
    const int parts = std::clamp(detail::stepsOf(kind, k) / detail::kFewestSteps, 1, std::min(detail::kMostParts, sms));
    const bool fills = detail::ceilDivide(n, c.features) >= sms / detail::ceilDivide(m, c.tokens);
    for (int split = 1; split <= (fills ? 1 : parts); split++) {  // K is cut where tiles leave SMs idle
      const double time = detail::plainTime(c, m, n, k, sms, split);
      if (time >= bestTime) continue;
      bestTime = time;
      best = {PlainFamily::kPlain, c.features, c.tokens, split, detail::kPlainSweep};
    }
  }
  // gemm_small.cuh's kernels promote groups of 128 too, and read weights fastest.
  if (m > 32 || std::strcmp(kind, "i4_exact_g128") != 0) return best;
  const GemmChoice few = chooseGemm(m, n, k, sms);
  if (few.family != GemmFamily::kSmall || few.tokens > 32) return best;
  return {PlainFamily::kSmall, few.features, few.tokens, few.split, 0};
}

}  // namespace fireq
