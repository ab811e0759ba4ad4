// gemm_w4a16_large on the host, against the exact sum: whole tiles one after another. CONFIG is defined by who compiles it.
#include "intrinsics.h"
#include "gemm_w4a16_large.cuh"
#include "gemm_problem.h"

#include <cstdio>

using namespace fireq;
using Config = CONFIG;
static_assert(sizeof(GemmW4a16LargeShared<Config>) <= kSharedBytes);

constexpr bool kSilu = Config::kEpilogue == Epilogue::kSiluMul;

static GemmW4a16LargeParams params;
static void multiply() { gemmW4a16Large<Config>(params); }

static std::vector<uint16_t> run(const GemmProblem& problem, int clusters) {
  const std::vector<uint8_t> packed = problem.pack();
  GemmResult result(problem);
  params.x = {const_cast<uint16_t*>(problem.x16.data()), 2, 64, problem.tokens, problem.depth / 64, problem.depth, 64, 64, Config::kTokens / Config::kCluster, 1, 128};
  params.out = mapOfMatrix(result.out.data(), 2, problem.columns(), problem.tokens, kSilu ? 32 : 64, Config::kStoreTokens, kSilu ? 64 : 128);
  params.weight = packed.data();
  params.operands = problem.operands();
  params.M = problem.tokens, params.N = problem.features, params.K = problem.depth, params.tokenTilesPerSweep = 2;
  ptx::readable = packed.data(), ptx::readableEnd = packed.data() + packed.size();
  emulation::launch(clusters * Config::kCluster, 1, Config::kCluster, Config::kThreads, multiply);
  result.checkBehind();
  return result.out;
}

struct Case {
  int tokens, features, depth, clusters;
  bool hasBias, hasResidual;
};

int main() {
  constexpr int kFeatures = Config::kFeatures * Config::kCluster, kTokens = Config::kTokens;
  const Case cases[] = {{kTokens + 7, kFeatures, 7 * kGroupSize, 1, true, !kSilu}, {3, kFeatures + 16, 4 * kGroupSize, 2, false, !kSilu}, {20, 16, kGroupSize, 1, true, false}};
  for (const Case& c : cases) {
    GemmProblem problem{c.tokens, c.features, c.depth, c.hasBias, c.hasResidual, kSilu, true, Activations::kBf16, kScaleBytes<Config::kScale>};
    problem.fill();
    const double error = problem.error(run(problem, c.clusters));
    std::printf("%d × %d × %d, %d clusters: error %.2e\n", c.tokens, c.features, c.depth, c.clusters, error);
    if (!(error < 2.5e-3)) return 1;
  }
  return 0;
}
