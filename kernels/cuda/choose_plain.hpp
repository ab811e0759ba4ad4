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

/// A kernel with its µs a step of K (128 bytes of x) and beside those, when it has an SM to itself. From times on an H200
/// (docs/kernels).
struct PlainCandidate {
  const char* kind;
  int features, tokens;
  double stepTime, tileTime;
};

constexpr PlainCandidate kPlainCandidates[] = {
    {"i4_exact_g32", 128, 64, 0.58, 2.0},     {"i4_exact_g32", 256, 64, 0.80, 3.0},   {"i4_exact_g64", 128, 64, 0.54, 2.0},
    {"i4_exact_g64", 256, 64, 0.75, 3.0},     {"i4_exact_g128", 128, 64, 0.50, 2.0},  {"i4_exact_g128", 256, 64, 0.70, 3.0},
    {"i4_exact_g128", 128, 128, 0.80, 3.0},   {"i4_exact_lookup", 128, 64, 0.69, 2.0}, {"i4_exact_lookup", 256, 64, 0.90, 3.0},
    {"i4_exact_lookup", 128, 128, 1.00, 3.0}, {"e4m3_dense", 128, 16, 0.62, 2.0},     {"e4m3_dense", 128, 64, 0.66, 3.0},
    {"e4m3_dense", 128, 256, 0.80, 10.0},     {"e4m3_precise", 128, 16, 0.62, 2.0},   {"e4m3_precise", 128, 128, 0.80, 5.0},
    {"bf16_dense", 128, 16, 0.62, 2.0},       {"bf16_dense", 128, 64, 0.66, 3.0},     {"bf16_dense", 128, 256, 0.80, 10.0},
};

inline int stepsOf(const char* kind, int k) { return std::strncmp(kind, "bf16", 4) == 0 ? k / 64 : k / 128; }

/// Clusters of three and more leave some SMs out: each lies within a GPC of about 16.
inline int plainSlots(int sms, int split) { return std::max(split, split <= 2 ? sms : sms * 5 / 6); }

inline double plainTime(const PlainCandidate& c, int m, int n, int k, int sms, int split) {
  const double blocks = static_cast<double>(ceilDivide(n, c.features)) * ceilDivide(m, c.tokens) * split;
  const double rounds = std::ceil(blocks / plainSlots(sms, split));
  return rounds * (ceilDivide(stepsOf(c.kind, k), split) * c.stepTime + c.tileTime) + (split > 1 ? 1.5 : 0);
}

/// gemm_small.cuh's kernels promote groups of 128 as well and read weights fastest, but 32 tokens at a time.
inline double smallTime(int m, int n, int k) { return ceilDivide(m, 32) * (1.5 + 0.5 * n * k / 3.5e6); }

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
  if (std::strcmp(kind, "i4_exact_g128") != 0) return best;
  const GemmChoice few = chooseGemm(std::min(m, 32), n, k, sms);
  const bool promotes = few.family == GemmFamily::kSmall && few.tokens <= 32;
  if (!promotes || (m > 32 && detail::smallTime(m, n, k) >= bestTime)) return best;
  return {PlainFamily::kSmall, few.features, few.tokens, few.split, 0};
}

}  // namespace fireq
