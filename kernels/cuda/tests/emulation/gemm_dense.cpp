// gemm_dense on the host, against the exact sum: tiles whose K is cut among the blocks of a cluster. CONFIG is defined by who compiles it.
#include "intrinsics.h"
#include "gemm_dense.cuh"

#include <cstdio>
#include <random>

using namespace fireq;
using Config = CONFIG;
static_assert(sizeof(GemmDenseShared<Config>) <= kSharedBytes);

constexpr bool kIsE4m3 = Config::kType == DenseType::kE4m3;
using Element = std::conditional_t<kIsE4m3, uint8_t, uint16_t>;

static GemmDenseParams params;
static void multiply() { gemmDense<Config>(params); }

struct Case {
  int tokens, features, depth, splits;
};

/// ‖out − exact‖ / ‖exact‖, of results in FP32.
static double run(const Case& c) {
  std::mt19937 random(c.tokens + c.features + c.depth);
  const auto draw = [&](size_t count) {
    std::vector<Element> values(count);
    for (auto& v : values) v = static_cast<Element>(kIsE4m3 ? random() % 88 | random() % 2 << 7 : ptx::floatToBf16(static_cast<int>(random() % 511) / 16.f - 16));
    return values;
  };
  const auto scales = [&](size_t count) {
    std::vector<float> values(count);
    for (auto& v : values) v = 0.5f + random() % 100 / 100.f;
    return values;
  };
  std::vector<Element> x = draw(size_t(c.tokens) * c.depth), weight = draw(size_t(c.features) * c.depth);
  const std::vector<float> tokenScale = scales(c.tokens), channelScale = scales(c.features);
  std::vector<float> out(size_t(c.tokens) * c.features + 64, NAN);
  constexpr int kRow = 128 / sizeof(Element);
  params.weight = mapOfMatrix(weight.data(), sizeof(Element), c.depth, c.features, kRow, Config::kFeatures, 128);
  params.x = mapOfMatrix(x.data(), sizeof(Element), c.depth, c.tokens, kRow, Config::kTokens, 128);
  params.problem = {kIsE4m3 ? tokenScale.data() : nullptr, kIsE4m3 ? channelScale.data() : nullptr, out.data(), {}, c.tokens, c.features, c.depth, 2, PlainOut::kF32};
  const int featureTiles = (c.features + Config::kFeatures - 1) / Config::kFeatures, tokenTiles = (c.tokens + Config::kTokens - 1) / Config::kTokens;
  emulation::launch(featureTiles * tokenTiles * c.splits, 1, c.splits, Config::kThreads, multiply);
  for (size_t i = out.size() - 64; i < out.size(); i++)
    if (!std::isnan(out[i])) emulation::fail("something behind the result");
  double error = 0, size = 0;
  for (int m = 0; m < c.tokens; m++)
    for (int n = 0; n < c.features; n++) {
      double exact = 0;
      for (int k = 0; k < c.depth; k++) exact += static_cast<double>(wgmma::valueOf(&x[size_t(m) * c.depth + k])) * wgmma::valueOf(&weight[size_t(n) * c.depth + k]);
      if (kIsE4m3) exact *= static_cast<double>(tokenScale[m]) * channelScale[n];
      const double off = out[size_t(m) * c.features + n] - exact;
      error += off * off, size += exact * exact;
    }
  return std::sqrt(error / size);
}

int main() {
  constexpr int kTokens = Config::kTokens, kSteps = 2 * Config::kStages + 1;
  const Case cases[] = {{kTokens - 1, Config::kFeatures, kSteps * Config::kStep, 1}, {kTokens + 1, 16, 3 * Config::kStep, 3}, {3, Config::kFeatures + 32, 9 * Config::kStep, 8}};
  for (const Case& c : cases) {
    const double error = run(c);
    std::printf("%d × %d × %d, %d blocks a tile: error %.2e\n", c.tokens, c.features, c.depth, c.splits, error);
    if (!(error < 1e-6)) return 1;
  }
  return 0;
}
