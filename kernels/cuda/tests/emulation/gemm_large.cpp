// gemm_large on the host, against the exact sum, over few tiles: whole ones one after another, and tiles that clusters share. CONFIG and
// EPILOGUE are defined by who compiles it.
#include "intrinsics.h"
#include "gemm_large.cuh"
#include "gemm_problem.h"

#include <cstdio>

using namespace fireq;

using Config = CONFIG;
constexpr bool kSilu = Epilogue::EPILOGUE == Epilogue::kSiluMul;
static_assert(kGemmLargeSharedBytes<Config> <= kSharedBytes);

static GemmLargeParams params;
static void multiply() { gemmLarge<Config>(params); }

static std::vector<uint16_t> run(const GemmProblem& problem, int clusters, int cut) {
  const std::vector<uint8_t> packed = problem.pack();
  GemmResult result(problem);
  std::vector<uint4> kept(clusters * Config::kCluster * (Config::Kept::kBytes / sizeof(uint4)), uint4{~0u, ~0u, ~0u, ~0u});
  std::vector<uint32_t> ready(clusters * Config::kCluster * Config::kWarpgroups);
  const auto mapOfResult = [&](const uint16_t* data) {
    return mapOfMatrix(const_cast<uint16_t*>(data), 2, problem.columns(), problem.tokens, kSilu ? 32 : 64, kResultTokens, kSilu ? 64 : 128);
  };
  params.x = mapOfMatrix(const_cast<uint8_t*>(problem.x8.data()), 1, problem.depth, problem.tokens, kGroupSize, Config::kTokens / Config::kCluster, 128);
  params.out = mapOfResult(result.out.data());
  params.residual = mapOfResult(problem.residual.data());
  params.weight = packed.data();
  params.tokenScale = problem.tokenScale.data();
  params.operands = problem.operands();
  params.kept = {kept.data(), ready.data()};
  params.M = problem.tokens, params.N = problem.features, params.K = problem.depth;
  params.tokenTilesPerSweep = 2, params.cutTiles = cut, params.epilogue = Epilogue::EPILOGUE;
  ptx::readable = nullptr, ptx::readableEnd = reinterpret_cast<const uint8_t*>(~uintptr_t{0});  // weights, and sums kept
  emulation::launch(clusters * Config::kCluster, 1, Config::kCluster, Config::kThreads, multiply);  // a cluster needs sums only of those before it
  for (uint32_t flag : ready)
    if (flag != 0) emulation::fail("a sum that nobody took");
  result.checkBehind();
  return result.out;
}

struct Case {
  int tokens, features, depth, clusters, cut;
  bool hasBias, hasResidual;
};

int main() {
  constexpr int kTokens = Config::kTokens, kWidth = Config::kCluster;  // a tile has so many times 128 features
  const Case cases[] = {{kTokens + 44, 128 * kWidth, 1280, 1, 0, true, !kSilu},
                        {70, 208 * kWidth, 1152, 2, 2, false, !kSilu},
                        {2 * kTokens - 1, 128 * kWidth, 2176, 1, 0, false, false},
                        {40, 144 * kWidth, 2048, 3, 2, true, false},
                        {kTokens + 1, 272 * kWidth, 384, 4, 6, false, false},
                        {1, 16, 128, 1, 0, false, !kSilu}};
  for (const Case& c : cases) {
    GemmProblem problem{c.tokens, c.features, c.depth, c.hasBias, c.hasResidual, kSilu, Config::kCodes == Codes::kFull, Activations::kE4m3,
                        kScaleBytes<Config::kScale>};
    problem.fill();
    const double error = problem.error(run(problem, c.clusters, c.cut));
    std::printf("%d × %d × %d, %d clusters, %d tiles cut: error %.2e\n", c.tokens, c.features, c.depth, c.clusters, c.cut, error);
    // The sums here are exact, so that kRounding isn't made up for by what the tensor cores cut off.
    if (!(error < 2.5e-3)) return 1;
  }
  return 0;
}
