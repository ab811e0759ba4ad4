// Plain weights: D[M, N] = x[M, K] · W[N, K]ᵀ. FP8 × FP8 with a scale a token and one a row of W, or BF16 × BF16. For the
// output head, for baselines, and for what a recipe leaves unquantized.
//
// Two warpgroups own 64 features each; a third fetches slices of 128 bytes of K of both operands, straight from row-major
// memory. Nothing is decoded or rescaled, so the tensor cores take both operands from shared memory. FP8 sums may leave
// the tensor cores at every slice, to be added in FP32.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "kernel_info.h"
#include "plain_gemm.cuh"
#include "ptx.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmDenseParams {
  CUtensorMap weight;  // [N, K], box {128 bytes, kFeatures}, 128-byte swizzle; likewise x with kTokens
  CUtensorMap x;       // [M, K]
  PlainProblem problem;  // token and channel scales null with BF16
};

enum class DenseType { kE4m3, kBf16 };
enum class Sums { kFast, kPromoted };

template <DenseType kType_, Sums kSums_, int kTokens_, int kStages_, int kPerSm_>
struct GemmDenseConfig {
  static constexpr DenseType kType = kType_;
  static constexpr Sums kSums = kSums_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr int kPerSm = kPerSm_;  // blocks that an SM holds
  static constexpr int kParts = kTokens > 128 ? kTokens / 128 : 1;  // accumulators a warpgroup
  static constexpr int kPartTokens = kTokens / kParts;
  static constexpr int kWarpgroups = 2;
  static constexpr int kFeatures = kWarpgroups * 64;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  static constexpr int kSliceBytes = 128;  // of K
  static constexpr int kStageBytes = (kFeatures + kTokens) * kSliceBytes;
  static constexpr int kStep = kType == DenseType::kE4m3 ? kSliceBytes : kSliceBytes / 2;
};

template <class C>
struct GemmDenseShared {
  alignas(1024) uint8_t weight[C::kStages][C::kFeatures * C::kSliceBytes];
  alignas(1024) uint8_t x[C::kStages][C::kTokens * C::kSliceBytes];
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
};

template <class C>
constexpr KernelInfo kGemmDenseInfo{C::kFeatures, C::kTokens, 1, 0, 1, C::kThreads, sizeof(GemmDenseShared<C>) + 1024, 0, 0};

template <class C>
__device__ __forceinline__ void fetchSlices(const GemmDenseParams& p, GemmDenseShared<C>& shared, const PlainTile<C>& tile) {
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = ptx::smemAddress(shared.weight), x = ptx::smemAddress(shared.x);
  int stage = 0, parity = 1;
  for (int step = tile.first; step < tile.last; step++) {
    const int k = step * C::kStep;
    ptx::barrierWait(empty + stage * 8, parity);
    ptx::barrierArriveExpect(full + stage * 8, C::kStageBytes);
    ptx::copyTile(weight + stage * C::kFeatures * C::kSliceBytes, &p.weight, k, tile.feature, full + stage * 8);
    ptx::copyTile(x + stage * C::kTokens * C::kSliceBytes, &p.x, k, tile.token, full + stage * 8);
    if (++stage == C::kStages) stage = 0, parity ^= 1;
  }
}

/// d = this warpgroup's 64 features × kTokens, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlices(const PlainTile<C>& tile, GemmDenseShared<C>& shared,
                                          float (&d)[C::kParts][C::kPartTokens / 2]) {
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = wgmma::descriptorLow(ptx::smemAddress(shared.weight) + threadIdx.x / 128 * 64 * C::kSliceBytes);
  const uint32_t x = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  const auto multiply = [&](float (&sum)[C::kParts][C::kPartTokens / 2], int stage, bool first) {
    wgmma::fence();
    const uint32_t a = weight + stage * (C::kFeatures * C::kSliceBytes / 16), b = x + stage * (C::kTokens * C::kSliceBytes / 16);
#pragma unroll
    for (int step = 0; step < C::kSliceBytes / 32; step++)
#pragma unroll
      for (int part = 0; part < C::kParts; part++) {
        const uint64_t left = wgmma::descriptor(a + 2 * step);
        const uint64_t right = wgmma::descriptor(b + part * (C::kPartTokens * C::kSliceBytes / 16) + 2 * step);
        if constexpr (C::kType == DenseType::kE4m3)
          wgmma::Wgmma<C::kPartTokens>::e4m3(sum[part], left, right, !(first && step == 0));
        else
          wgmma::Wgmma<C::kPartTokens>::bf16(sum[part], left, right, !(first && step == 0));
      }
    wgmma::commit();
  };
  const auto release = [&](int stage) {
    ptx::barrierArrive(empty + stage * 8);
  };
  int stage = 0, parity = 0;
  if constexpr (C::kSums == Sums::kPromoted) {
    float sum[C::kParts][C::kPartTokens / 2];
#pragma unroll
    for (int i = 0; i < C::kParts * C::kPartTokens / 2; i++) d[0][i] = 0.f;
    for (int step = tile.first; step < tile.last; step++) {
      ptx::barrierWait(full + stage * 8, parity);
      wgmma::pin(sum[0]);
      multiply(sum, stage, true);
      wgmma::wait<0>();
      wgmma::pin(sum[0]);
      release(stage);
#pragma unroll
      for (int i = 0; i < C::kPartTokens / 2; i++) d[0][i] += sum[0][i];
      if (++stage == C::kStages) stage = 0, parity ^= 1;
    }
  } else {
    ptx::barrierWait(full, 0);
    multiply(d, 0, true);
    for (int step = tile.first + 1; step < tile.last; step++) {
      const int previous = stage;
      if (++stage == C::kStages) stage = 0, parity ^= 1;
      ptx::barrierWait(full + stage * 8, parity);
      multiply(d, stage, false);
      wgmma::wait<1>();  // the slice before is done
      release(previous);
    }
    wgmma::wait<0>();
#pragma unroll
    for (int part = 0; part < C::kParts; part++) wgmma::pin(d[part]);
  }
}

template <class C>
__device__ __forceinline__ void gemmDense(const GemmDenseParams& p) {
  static_assert(C::kSums == Sums::kFast || C::kParts == 1, "a promoting kernel has one accumulator");
  auto& shared = beginPlain<C, GemmDenseShared<C>>();
  const PlainTile<C> tile(p.problem);
  if (threadIdx.x >= C::kWarpgroups * 128) {
    if (threadIdx.x == C::kWarpgroups * 128) fetchSlices<C>(p, shared, tile);
    return;
  }
  loadTokenScales<C>(p.problem, tile, shared);
  float d[C::kParts][C::kPartTokens / 2];
  sumSlices<C>(tile, shared, d);
  finishPlain<C>(p.problem, tile, d, shared);
}

}  // namespace fireq
