// gemm_exact on the host, without look-up rounding, against the exact sum: tiles whose K is cut among up to 8 blocks. CONFIG is defined by who
// compiles it.
#include "intrinsics.h"
#include "gemm_exact.cuh"
#include "gemm_problem.h"

#include <cstdio>

using namespace fireq;
using Config = CONFIG;
static_assert(sizeof(GemmExactShared<Config>) <= kSharedBytes);

static GemmExactParams params;
static void multiply() { gemmExact<Config>(params); }

static std::vector<uint16_t> run(const GemmProblem& problem, int splits) {
  const std::vector<uint8_t> packed = problem.pack();
  GemmResult result(problem);
  params.x = mapOfMatrix(const_cast<uint8_t*>(problem.x8.data()), 1, problem.depth, problem.tokens, kGroupSize, Config::kTokens, 128);
  params.weight = packed.data();
  params.problem = {problem.tokenScale.data(), nullptr, result.out.data(), problem.operands(), problem.tokens, problem.features, problem.depth, 2,
                    problem.isSilu ? PlainOut::kSiluMul : PlainOut::kBf16};
  ptx::readable = packed.data(), ptx::readableEnd = packed.data() + packed.size();
  const int featureTiles = (problem.features + Config::kFeatures - 1) / Config::kFeatures;
  const int tokenTiles = (problem.tokens + Config::kTokens - 1) / Config::kTokens;
  emulation::launch(featureTiles * tokenTiles * splits, 1, splits, Config::kThreads, multiply);
  result.checkBehind();
  return result.out;
}

struct Case {
  int tokens, features, depth, splits;
  bool hasBias, hasResidual, isSilu;
};

int main() {
  constexpr int kFeatures = Config::kFeatures, kTokens = Config::kTokens;
  const Case cases[] = {{kTokens - 1, kFeatures, (2 * Config::kStages + 1) * kGroupSize, 1, true, true, false},
                        {kTokens + 1, 16, 5 * kGroupSize, 3, false, false, false},
                        {9, kFeatures + 32, 9 * kGroupSize, 8, true, false, true}};
  for (const Case& c : cases) {
    GemmProblem problem{c.tokens, c.features, c.depth, c.hasBias, c.hasResidual, c.isSilu, Config::kCodes == Codes::kFull, Activations::kE4m3,
                        kScaleBytes<Config::kScale>, Config::kGroup};
    problem.fill();
    const double error = problem.error(run(problem, c.splits));
    std::printf("%d × %d × %d, %d blocks a tile: error %.2e\n", c.tokens, c.features, c.depth, c.splits, error);
    if (!(error < 2e-3)) return 1;
  }
  return 0;
}
