#pragma once

#include <algorithm>

#include "../../core/op.h"
#include "../../simd/convert.h"

namespace fireq::FIREQ_ISA {

/// What happens to a finished sum.
struct Epilogue {
  const float* xScale = nullptr;
  const float* channelScale = nullptr;  ///< padded to whole tiles
  const float* bias = nullptr;
  const View* residual = nullptr;
  View out;

  void finish(const Row16& total, int64_t token, int64_t tile) const {
    const int64_t n = tile * kTile;
    const int64_t count = std::min<int64_t>(kTile, out.columns - n);
    Row16 sum = total;
    float added[kTile] = {};
    if (bias != nullptr) std::memcpy(added, bias + n, count * sizeof(float));
    const Row16 biases = load16(added);
    if (residual != nullptr) {
      const size_t size = sizeOf(residual->dtype);
      toFloats(residual->dtype, rowOf(*residual, token) + n * size, count, added);
    }
    const Row16 residuals = load16(added);
    for (int p = 0; p < kParts; p++) {
      VF& v = sum.part[p];
      if (xScale != nullptr) v *= xScale[token];
      if (channelScale != nullptr) v *= load<VF>(channelScale + n + p * kWidth);
      if (bias != nullptr) v += biases.part[p];
      if (residual != nullptr) v += residuals.part[p];
    }
    float lanes[kTile];
    store16(lanes, sum);
    fromFloats(lanes, count, out.dtype, rowOf(out, token) + n * sizeOf(out.dtype));
  }
};

/// Asks for the weights that a row of words' reader needs some 4 KiB later: hardware alone stops at page ends.
FIREQ_INLINE void prefetchWeights(const uint32_t* words) { __builtin_prefetch(words + 1024, 0, 2); }

/// body(tile) for every tile of a weight, neighbouring tiles on one thread.
template <class Body>
FIREQ_INLINE void forTiles(OpContext& ctx, const Weight& weight, const Body& body) {
  const int64_t chunk = std::clamp<int64_t>(weight.tiles / (ctx.threads() * 8), 1, 16);
  ctx.parallelFor((weight.tiles + chunk - 1) / chunk, [&](int64_t task, int) {
    const int64_t end = std::min(weight.tiles, (task + 1) * chunk);
    for (int64_t tile = task * chunk; tile < end; tile++) body(tile);
  });
}

}  // namespace fireq::FIREQ_ISA
