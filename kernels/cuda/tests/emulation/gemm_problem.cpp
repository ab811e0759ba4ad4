#include "gemm_problem.h"

#include <random>

namespace fireq {

void GemmProblem::fill() {
  std::mt19937 random(tokens + features + depth);
  const auto below = [&](int n) { return static_cast<int>(random() % n); };
  const auto draw = [](auto& values, size_t count, auto value) {
    values.resize(count);
    for (auto& v : values) v = value();
  };
  draw(codes, size_t(features) * depth, [&] { return isFull ? below(16) - 8 : below(15) - 7; });
  draw(scales, size_t(features) * groups, [&] { return (below(2) ? 1.f : -1.f) * std::ldexp(128.f + below(128), below(8) - 16); });
  if (activations == Activations::kE4m3) {
    draw(tokenScale, tokens, [&] { return 0.5f + below(100) / 100.f; });
    draw(x8, size_t(tokens) * depth, [&] { return static_cast<uint8_t>(below(88) | below(2) << 7); });
  } else {
    tokenScale.assign(tokens, 1.f);
    draw(x16, size_t(tokens) * depth, [&] { return ptx::floatToBf16(static_cast<float>(below(511) - 255) / 16); });
  }
  draw(bias, features, [&] { return ptx::floatToBf16(static_cast<float>(below(200) - 100)); });
  draw(residual, size_t(tokens) * features, [&] { return ptx::floatToBf16(static_cast<float>(below(2000) - 1000)); });
}

std::vector<uint8_t> GemmProblem::pack() const {
  const int rows = (features + kBlockRows - 1) / kBlockRows * kBlockRows, blocks = depth / kGroupSize;
  const int blockBytes = kBlockCodeBytes + kGroupSize / groupSize * kBlockRows * scaleBytes;
  std::vector<uint8_t> packed(size_t(rows) / kBlockRows * blocks * blockBytes);
  for (int row = 0; row < rows; row++)
    for (int k = 0; k < depth; k++) {
      uint8_t* const block = packed.data() + (size_t(row) / kBlockRows * blocks + k / kGroupSize) * blockBytes;
      const int r = row % kBlockRows, code = row < features ? codes[size_t(row) * depth + k] : 0;
      activations == Activations::kE4m3 ? putForE4m3(block, r, k % kGroupSize, code) : putForBf16(block, r, k % kGroupSize, code);
      if (k % groupSize > 0) continue;
      const float scale = row < features ? scales[size_t(row) * groups + k / groupSize] : 1.f;
      const uint16_t bits = ptx::floatToBf16(scale);
      std::memcpy(block + kBlockCodeBytes + (k % kGroupSize / groupSize * kBlockRows + r) * scaleBytes, scaleBytes == 2 ? static_cast<const void*>(&bits) : &scale,
                  scaleBytes);
    }
  return packed;
}

void GemmProblem::putForE4m3(uint8_t* block, int r, int k, int code) const {
  const int sign = code < 0, magnitude = std::abs(code) - (isFull ? sign : 0), thread = r / 16 * 32 + r % 8 * 4 + k % 16 / 4, word = k / 16, byte = k % 4;
  uint8_t* const to = block + word / 4 * 2048 + thread * 16 + word % 4 * 4;
  const bool odd = r % 16 >= 8;
  to[byte] |= magnitude << (odd ? 4 : 0);
  to[odd ? (byte + 1) % 4 : byte] |= sign << (odd ? 3 : 7);
}

void GemmProblem::putForBf16(uint8_t* block, int r, int k, int code) {
  const int step = k / 16, thread = r / 16 * 32 + r % 8 * 4 + k % 8 / 2, nibble = k % 16 / 8 * 2 + r % 16 / 8;
  uint8_t* const half = block + step / 4 * 2048 + thread * 16 + step % 4 * 4 + k % 2 * 2;
  half[nibble / 2] |= (code + 8) << nibble % 2 * 4;
}

std::vector<double> GemmProblem::exact(int token) const {
  std::vector<double> sums(features), result(columns()), activations(depth);
  for (int k = 0; k < depth; k++) activations[k] = activation(token, k);
  for (int n = 0; n < features; n++) {
    for (int g = 0; g < groups; g++) {
      double sum = 0;
      for (int k = g * groupSize; k < (g + 1) * groupSize; k++) sum += codes[size_t(n) * depth + k] * activations[k];
      sums[n] += sum * scales[size_t(n) * groups + g];
    }
    sums[n] = sums[n] * tokenScale[token] + (hasBias ? fromBf16(bias[n]) : 0.f);
  }
  for (int n = 0; n < columns(); n++) {
    const double gate = sums[n / 8 * 16 + n % 8];
    result[n] = isSilu ? gate / (1 + std::exp(-gate)) * sums[n / 8 * 16 + 8 + n % 8]
                       : sums[n] + (hasResidual ? fromBf16(residual[size_t(token) * features + n]) : 0.f);
  }
  return result;
}

double GemmProblem::error(const std::vector<uint16_t>& out) const {
  double error = 0, size = 0;
  for (int token = 0; token < tokens; token++) {
    const std::vector<double> result = exact(token);
    for (int n = 0; n < columns(); n++) {
      const double off = fromBf16(out[size_t(token) * columns() + n]) - result[n];
      error += off * off, size += result[n] * result[n];
    }
  }
  return std::sqrt(error / size);
}

}  // namespace fireq
