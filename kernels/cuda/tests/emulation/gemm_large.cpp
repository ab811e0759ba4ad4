// gemm_large on the host, against the exact sum, over few tiles: whole ones one after another, and tiles that clusters share. CLUSTER, TOKENS,
// CODES, SCALE and EPILOGUE are defined by who compiles it.
#include "intrinsics.h"
#include "gemm_large.cuh"

#include <random>

namespace fireq {
alignas(1024) uint8_t memory[kSharedBytes];
}
using namespace fireq;

constexpr bool kWide = TOKENS == 256, kFull = Codes::CODES == Codes::kFull, kSilu = Epilogue::EPILOGUE == Epilogue::kSiluMul;
using Config = GemmLargeConfig<kWide ? 2 : 1, kWide ? 1 : 2, TOKENS, CLUSTER, kWide ? 5 : 8, 8, Codes::CODES, ScaleType::SCALE>;
constexpr int kScale = kScaleBytes<ScaleType::SCALE>, kBlock = kBlockBytes<ScaleType::SCALE>;
static_assert(kGemmLargeSharedBytes<Config> <= kSharedBytes);

static GemmLargeParams params;
static void multiply() { gemmLarge<Config>(params); }

static float fromBf16(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }

struct Case {
  int tokens, features, depth, clusters, cut;
  bool hasBias, hasResidual;
};

struct Problem {
  Case c;
  int groups;
  std::vector<int> codes;
  std::vector<float> scales, tokenScale;
  std::vector<uint8_t> x;
  std::vector<uint16_t> bias, residual;

  explicit Problem(const Case& c) : c(c), groups(c.depth / kGroupSize) {
    std::mt19937 random(c.tokens + c.features + c.depth);
    const auto below = [&](int n) { return static_cast<int>(random() % n); };
    const auto fill = [](auto& values, size_t count, auto value) {
      values.resize(count);
      for (auto& v : values) v = value();
    };
    fill(codes, size_t(c.features) * c.depth, [&] { return kFull ? below(16) - 8 : below(15) - 7; });
    fill(scales, size_t(c.features) * groups, [&] { return (below(2) ? 1.f : -1.f) * std::ldexp(128.f + below(128), below(8) - 16); });
    fill(tokenScale, c.tokens, [&] { return 0.5f + below(100) / 100.f; });
    fill(x, size_t(c.tokens) * c.depth, [&] { return static_cast<uint8_t>(below(88) | below(2) << 7); });
    fill(bias, c.features, [&] { return ptx::floatToBf16(static_cast<float>(below(200) - 100)); });
    fill(residual, size_t(c.tokens) * c.features, [&] { return ptx::floatToBf16(static_cast<float>(below(2000) - 1000)); });
  }

  int columns() const { return kSilu ? c.features / 2 : c.features; }

  /// As int4.cuh says, rows beyond the last as zeros.
  std::vector<uint8_t> pack() const {
    const int rows = (c.features + kBlockRows - 1) / kBlockRows * kBlockRows;
    std::vector<uint8_t> packed(size_t(rows) / kBlockRows * groups * kBlock);
    for (int row = 0; row < rows; row++)
      for (int g = 0; g < groups; g++) {
        uint8_t* const block = packed.data() + (size_t(row) / kBlockRows * groups + g) * kBlock;
        const int r = row % kBlockRows;
        const float scale = row < c.features ? scales[size_t(row) * groups + g] : 1.f;
        const uint16_t bits = ptx::floatToBf16(scale);
        std::memcpy(block + kBlockCodeBytes + r * kScale, kScale == 2 ? static_cast<const void*>(&bits) : &scale, kScale);
        for (int k = 0; k < kGroupSize; k++) {
          const int code = row < c.features ? codes[size_t(row) * c.depth + g * kGroupSize + k] : 0, sign = code < 0;
          const int magnitude = std::abs(code) - (kFull ? sign : 0), thread = r / 16 * 32 + r % 8 * 4 + k % 16 / 4, word = k / 16, byte = k % 4;
          uint8_t* const to = block + word / 4 * 2048 + thread * 16 + word % 4 * 4;
          const bool odd = r % 16 >= 8;
          to[byte] |= magnitude << (odd ? 4 : 0);
          to[odd ? (byte + 1) % 4 : byte] |= sign << (odd ? 3 : 7);
        }
      }
    return packed;
  }

  std::vector<double> exact(int token) const {
    std::vector<double> sums(c.features), result(columns());
    for (int n = 0; n < c.features; n++) {
      for (int g = 0; g < groups; g++) {
        double sum = 0;
        for (int k = g * kGroupSize; k < (g + 1) * kGroupSize; k++)
          sum += codes[size_t(n) * c.depth + k] * static_cast<double>(ptx::e4m3ToFloat(x[size_t(token) * c.depth + k]));
        sums[n] += sum * scales[size_t(n) * groups + g];
      }
      sums[n] = sums[n] * tokenScale[token] + (c.hasBias ? fromBf16(bias[n]) : 0.f);
    }
    for (int n = 0; n < columns(); n++) {
      const double gate = sums[n / 8 * 16 + n % 8];
      result[n] = kSilu ? gate / (1 + std::exp(-gate)) * sums[n / 8 * 16 + 8 + n % 8]
                        : sums[n] + (c.hasResidual ? fromBf16(residual[size_t(token) * c.features + n]) : 0.f);
    }
    return result;
  }
};

static std::vector<uint16_t> run(const Problem& problem) {
  const Case& c = problem.c;
  const int columns = problem.columns();
  const std::vector<uint8_t> packed = problem.pack();
  std::vector<uint16_t> out(static_cast<size_t>(c.tokens) * columns + 64, 0x7fc1);  // NaN
  std::vector<uint4> kept(c.clusters * CLUSTER * (Config::Kept::kBytes / sizeof(uint4)), uint4{~0u, ~0u, ~0u, ~0u});
  std::vector<uint32_t> ready(c.clusters * CLUSTER * Config::kWarpgroups);
  params.x = {const_cast<uint8_t*>(problem.x.data()), 1, c.depth, c.tokens, kGroupSize, TOKENS / CLUSTER, 128};
  params.out = {out.data(), 2, columns, c.tokens, kSilu ? 32 : 64, kResultTokens, kSilu ? 64 : 128};
  params.residual = params.out;
  if (c.hasResidual) params.residual.matrix = const_cast<uint16_t*>(problem.residual.data());
  params.weight = packed.data();
  params.tokenScale = problem.tokenScale.data();
  params.operands = {c.hasBias ? problem.bias.data() : nullptr, c.hasResidual ? problem.residual.data() : nullptr};
  params.kept = {kept.data(), ready.data()};
  params.M = c.tokens, params.N = c.features, params.K = c.depth, params.tokenTilesPerSweep = 2, params.cutTiles = c.cut, params.epilogue = Epilogue::EPILOGUE;
  ptx::readable = nullptr, ptx::readableEnd = reinterpret_cast<const uint8_t*>(~uintptr_t{0});
  emulation::launch(c.clusters * CLUSTER, 1, CLUSTER, Config::kThreads, multiply);  // a cluster needs sums only of those before it
  for (uint32_t flag : ready)
    if (flag != 0) emulation::fail("a sum that nobody took");
  for (size_t i = static_cast<size_t>(c.tokens) * columns; i < out.size(); i++)
    if (out[i] != 0x7fc1) emulation::fail("something behind the result");
  return out;
}

int main() {
  const Case cases[] = {
      {TOKENS + 44, 128 * CLUSTER, 1280, 1, 0, true, !kSilu}, {70, 208 * CLUSTER, 1152, 2, 2, false, !kSilu},  {2 * TOKENS - 1, 128 * CLUSTER, 2176, 1, 0, false, false},
      {40, 144 * CLUSTER, 2048, 3, 2, true, false},           {TOKENS + 1, 272 * CLUSTER, 384, 4, 6, false, false}, {1, 16, 128, 1, 0, false, !kSilu}};
  for (const Case& c : cases) {
    const Problem problem(c);
    const std::vector<uint16_t> out = run(problem);
    double error = 0, size = 0;
    for (int token = 0; token < c.tokens; token++) {
      const std::vector<double> exact = problem.exact(token);
      for (int n = 0; n < problem.columns(); n++) {
        const double off = fromBf16(out[static_cast<size_t>(token) * problem.columns() + n]) - exact[n];
        error += off * off, size += exact[n] * exact[n];
      }
    }
    error = std::sqrt(error / size);
    std::printf("%d × %d × %d, %d clusters, %d tiles cut: error %.2e\n", c.tokens, c.features, c.depth, c.clusters, c.cut, error);
    // BF16 has 1.65e-3; the sums here are exact, so that kRounding isn't made up for by what the tensor cores cut off.
    if (!(error < 2.5e-3)) return 1;
  }
  return 0;
}
