// Plain weights: D[M, N] = x[M, K] · W[N, K]ᵀ. FP8 × FP8 with a scale a token and one a row of W, or BF16 × BF16. For the
// output head, for baselines, and for what a recipe leaves unquantized.
//
// Two warpgroups own 64 features each; a third fetches slices of 128 bytes of K of both operands, straight from row-major
// memory. Nothing is decoded or rescaled, so the tensor cores take both operands from shared memory.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "epilogue.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmDenseParams {
  CUtensorMap weight;  // [N, K], box {128 bytes, kFeatures}, 128-byte swizzle; likewise x with kTokens
  CUtensorMap x;       // [M, K]
  const float* tokenScale;    // [M], null with BF16
  const float* channelScale;  // [N], null with BF16
  void* out;                  // BF16 or FP32 [M, N]
  EpilogueOperands operands;
  int M, N, K;
  int tokenTilesPerSweep;  // that share a sweep over the features, so that their activations stay in the L2
};

enum class DenseType { kE4m3, kBf16 };
enum class OutType { kBf16, kF32 };

template <DenseType kType_, OutType kOut_, int kTokens_, int kStages_, int kPerSm_>
struct GemmDenseConfig {
  static constexpr DenseType kType = kType_;
  static constexpr OutType kOut = kOut_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr int kPerSm = kPerSm_;  // blocks that an SM holds
  static constexpr int kParts = kTokens > 128 ? kTokens / 128 : 1;  // accumulators a warpgroup
  static constexpr int kPartTokens = kTokens / kParts;
  static constexpr int kWarpgroups = 2;
  static constexpr int kFeatures = kWarpgroups * 64;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  static constexpr int kSliceBytes = 128;  // of K
  static constexpr int kSlice = kType == DenseType::kE4m3 ? kSliceBytes : kSliceBytes / 2;
};

template <class C>
struct GemmDenseShared {
  alignas(1024) uint8_t weight[C::kStages][C::kFeatures * C::kSliceBytes];
  alignas(1024) uint8_t x[C::kStages][C::kTokens * C::kSliceBytes];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
};

template <class C>
constexpr KernelInfo kGemmDenseInfo{C::kFeatures, C::kTokens, 1, 0, 1, C::kThreads, sizeof(GemmDenseShared<C>) + 1024, 0, 0};

/// Where a block's tile begins: neighbouring blocks take the token tiles of one sweep, then the next features.
template <class C>
struct DenseTile {
  int feature, token;
  __device__ __forceinline__ explicit DenseTile(const GemmDenseParams& p) {
    const int tokenTiles = (p.M + C::kTokens - 1) / C::kTokens, featureTiles = (p.N + C::kFeatures - 1) / C::kFeatures;
    const int tile = blockIdx.x, sweep = tile / (p.tokenTilesPerSweep * featureTiles);
    const int first = sweep * p.tokenTilesPerSweep, width = min(p.tokenTilesPerSweep, tokenTiles - first);
    const int within = tile - first * featureTiles;
    token = (first + within % width) * C::kTokens, feature = within / width * C::kFeatures;
  }
};

template <class C>
__device__ __forceinline__ void fetchSlices(const GemmDenseParams& p, GemmDenseShared<C>& shared, const DenseTile<C>& tile) {
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = ptx::smemAddress(shared.weight), x = ptx::smemAddress(shared.x);
  int stage = 0, parity = 1;
  for (int k = 0; k < p.K; k += C::kSlice) {
    ptx::barrierWait(empty + stage * 8, parity);
    ptx::barrierArriveExpect(full + stage * 8, (C::kFeatures + C::kTokens) * C::kSliceBytes);
    ptx::copyTile(weight + stage * C::kFeatures * C::kSliceBytes, &p.weight, k, tile.feature, full + stage * 8);
    ptx::copyTile(x + stage * C::kTokens * C::kSliceBytes, &p.x, k, tile.token, full + stage * 8);
    if (++stage == C::kStages) stage = 0, parity ^= 1;
  }
}

/// d = this warpgroup's 64 features × kTokens, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlices(const GemmDenseParams& p, GemmDenseShared<C>& shared,
                                          float (&d)[C::kParts][C::kPartTokens / 2]) {
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = wgmma::descriptorLow(ptx::smemAddress(shared.weight) + threadIdx.x / 128 * 64 * C::kSliceBytes);
  const uint32_t x = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  const auto multiply = [&](int stage, bool first) {
    wgmma::fence();
    const uint32_t a = weight + stage * (C::kFeatures * C::kSliceBytes / 16), b = x + stage * (C::kTokens * C::kSliceBytes / 16);
#pragma unroll
    for (int step = 0; step < C::kSliceBytes / 32; step++)
#pragma unroll
      for (int part = 0; part < C::kParts; part++) {
        const uint64_t left = wgmma::descriptor(a + 2 * step);
        const uint64_t right = wgmma::descriptor(b + part * (C::kPartTokens * C::kSliceBytes / 16) + 2 * step);
        if constexpr (C::kType == DenseType::kE4m3)
          wgmma::Wgmma<C::kPartTokens>::e4m3(d[part], left, right, !(first && step == 0));
        else
          wgmma::Wgmma<C::kPartTokens>::bf16(d[part], left, right, !(first && step == 0));
      }
    wgmma::commit();
  };
  const auto release = [&](int stage) {
    if (threadIdx.x % 32 == 0) ptx::barrierArrive(empty + stage * 8);
  };
  int stage = 0, parity = 0, previous = 0;
  ptx::barrierWait(full, 0);
  multiply(0, true);
  for (int k = C::kSlice; k < p.K; k += C::kSlice) {
    previous = stage;
    if (++stage == C::kStages) stage = 0, parity ^= 1;
    ptx::barrierWait(full + stage * 8, parity);
    multiply(stage, false);
    wgmma::wait<1>();  // the slice before is done
    release(previous);
  }
  wgmma::wait<0>();
#pragma unroll
  for (int part = 0; part < C::kParts; part++) wgmma::pin(d[part]);
}

/// A warp's 16 features × 8 tokens of the output.
template <OutType kOut, class Params>
__device__ __forceinline__ void storeDenseTile(const Params& p, float4 d, int feature, int token) {
  const int lane = threadIdx.x % 32, row = feature + lane / 4, column = token + lane % 4 * 2;
  if (feature >= p.N) return;  // N is a multiple of 16
  if (p.channelScale != nullptr) {
    const float low = __ldg(p.channelScale + row), high = __ldg(p.channelScale + row + 8);
    d = make_float4(d.x * low, d.y * low, d.z * high, d.w * high);
  }
  if (p.tokenScale != nullptr) {
    const float even = column < p.M ? __ldg(p.tokenScale + column) : 0.f;
    const float odd = column + 1 < p.M ? __ldg(p.tokenScale + column + 1) : 0.f;
    d = make_float4(d.x * even, d.y * odd, d.z * even, d.w * odd);
  }
  const float2 bias = loadBias(p.operands.bias, feature, p.N);
  d = make_float4(d.x + bias.x, d.y + bias.x, d.z + bias.y, d.w + bias.y);
  if (p.operands.residual != nullptr) addTile(d, loadTile(p.operands.residual, p.N, p.M, feature, token));
  if constexpr (kOut == OutType::kF32) {
    float* out = static_cast<float*>(p.out) + static_cast<size_t>(column) * p.N + row;
    if (column < p.M) out[0] = d.x, out[8] = d.z;
    if (column + 1 < p.M) out[p.N] = d.y, out[p.N + 8] = d.w;
  } else {
    const uint32_t low = ptx::transposeMatrix(ptx::packBf16(d.x, d.y)), high = ptx::transposeMatrix(ptx::packBf16(d.z, d.w));
    if (token + lane / 4 >= p.M) return;
    uint16_t* out = static_cast<uint16_t*>(p.out) + static_cast<size_t>(token + lane / 4) * p.N + feature + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(out) = low;
    *reinterpret_cast<uint32_t*>(out + 8) = high;
  }
}

template <class C>
__device__ __forceinline__ void gemmDense(const GemmDenseParams& p) {
  extern __shared__ uint8_t raw[];
  auto& shared = *reinterpret_cast<GemmDenseShared<C>*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const DenseTile<C> tile(p);
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kWarpgroups * 4);
    }
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::waitForPrevious();
  if (threadIdx.x >= C::kWarpgroups * 128) {
    if (threadIdx.x == C::kWarpgroups * 128) fetchSlices<C>(p, shared, tile);
    return;
  }
  float d[C::kParts][C::kPartTokens / 2];
  sumSlices<C>(p, shared, d);
  const int feature = tile.feature + threadIdx.x / 32 * 16;
#pragma unroll
  for (int part = 0; part < C::kParts; part++)
#pragma unroll
    for (int c = 0; c < C::kPartTokens / 8; c++)
      storeDenseTile<C::kOut>(p, make_float4(d[part][4 * c], d[part][4 * c + 1], d[part][4 * c + 2], d[part][4 * c + 3]),
                              feature, tile.token + part * C::kPartTokens + c * 8);
}

}  // namespace fireq
