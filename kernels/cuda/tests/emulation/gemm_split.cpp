// The GEMMs whose clusters cut K among their blocks (gemm_small, gemm_medium, gemm_w4a16), on the host, against the exact sum. HEADER,
// KERNEL and CONFIG are defined by who compiles it.
#include "intrinsics.h"
#include HEADER

#include <cstdio>
#include <string_view>

#include "gemm_problem.h"

using namespace fireq;
using Config = CONFIG;

constexpr bool kSilu = Config::kEpilogue == Epilogue::kSiluMul;
constexpr bool kIsBf16 = Config::kXBytes == Config::kTokens * kGroupSize * 2;
constexpr int kRow = kIsBf16 ? 64 : 128;  // elements of K in 128 bytes
constexpr int kMostSplits = std::string_view(HEADER) == "gemm_medium.cuh" ? 6 : 8;

/// Codes from −8 on. Where the kernel has no such choice, all codes are alike.
template <class C>
constexpr bool isFull() {
  if constexpr (requires { C::kCodes; })
    return C::kCodes == Codes::kFull;
  else
    return true;
}

static GemmSmallParams params;
static void multiply() { KERNEL<Config>(params); }

static std::vector<uint16_t> run(const GemmProblem& problem, int splits) {
  const std::vector<uint8_t> packed = problem.pack();
  GemmResult result(problem);
  void* const x = kIsBf16 ? static_cast<void*>(const_cast<uint16_t*>(problem.x16.data())) : const_cast<uint8_t*>(problem.x8.data());
  params.x = {x, kIsBf16 ? 2 : 1, kRow, problem.tokens, problem.depth / kRow, problem.depth, kRow, kRow, Config::kTokens, Config::kBatch * kGroupSize / kRow, 128};
  params.weight = packed.data();
  params.tokenScale = problem.tokenScale.data();
  params.out = result.out.data();
  params.operands = problem.operands();
  params.M = problem.tokens, params.N = problem.features, params.K = problem.depth;
  ptx::readable = packed.data(), ptx::readableEnd = packed.data() + packed.size();
  const int featureTiles = (problem.features + Config::kFeatures - 1) / Config::kFeatures;
  const int tokenTiles = (problem.tokens + Config::kTokens - 1) / Config::kTokens;
  emulation::launch(featureTiles * splits, tokenTiles, splits, Config::kThreads, multiply);
  result.checkBehind();
  return result.out;
}

struct Case {
  int tokens, features, depth, splits;
  bool hasBias, hasResidual;
};

int main() {
  constexpr int kFeatures = Config::kFeatures, kTokens = Config::kTokens, kRing = Config::kStages * Config::kBatch;  // groups
  const Case cases[] = {{kTokens, kFeatures, (2 * kRing + 1) * kGroupSize, 1, false, !kSilu},      // the ring comes round twice
                        {kTokens - 1, kFeatures + 16, (3 * kRing + 2) * kGroupSize, 2, true, false},
                        {kTokens + 1, kFeatures, 5 * kGroupSize, 3, false, !kSilu},
                        {1, 16, kGroupSize, 1, true, !kSilu},
                        {kTokens / 2, 2 * kFeatures - 16, 13 * kGroupSize, kMostSplits, true, !kSilu}};
  for (const Case& c : cases) {
    GemmProblem problem{c.tokens, c.features, c.depth, c.hasBias, c.hasResidual, kSilu, isFull<Config>(), kIsBf16 ? Activations::kBf16 : Activations::kE4m3, kScaleBytes<Config::kScale>};
    problem.fill();
    const double error = problem.error(run(problem, c.splits));
    std::printf("%d × %d × %d, %d blocks a tile: error %.2e\n", c.tokens, c.features, c.depth, c.splits, error);
    if (!(error < 2.5e-3)) return 1;
  }
  return 0;
}
