// INT4 weights × BF16 activations for many tokens: D[M, N] = x[M, K] · W[N, K]ᵀ in BF16.
//
// Persistent blocks of 128 features × 256 tokens. Two warpgroups own 64 features each and multiply in turns: a group takes
// the tensor cores 1024 cycles, under which the other warpgroup rescales its sum and decodes its next group. A pair of
// blocks takes neighbouring features of the same tokens, and each fetches half of the activations for both.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "epilogue.cuh"
#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "ring.cuh"
#include "sums_bf16.cuh"
#include "tile_order.cuh"
#include "tile_result.cuh"

namespace fireq {

struct GemmW4a16LargeParams {
  CUtensorMap x;    // BF16 [K / 64, M, 64], box {64, kTokens / kCluster, 1}, 128-byte swizzle
  CUtensorMap out;  // BF16 [M, N], box {64, kStoreTokens}, 128-byte swizzle; with kSiluMul [M, N / 2], box {32, …}, 64-byte
  const uint8_t* weight;
  EpilogueOperands operands;
  int M, N, K;
  int tokenTilesPerSweep;
};

template <int kTokens_, int kStages_, Epilogue kEpilogue_, ScaleType kScale_>
struct GemmW4a16LargeConfig {
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kCluster = 2;
  static constexpr int kBatch = 1;
  static constexpr int kWarpgroups = 2;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize * 2;
  static constexpr int kStoreTokens = kEpilogue == Epilogue::kSiluMul ? 32 : 16;  // tokens a store of the copy engine
  static constexpr int kStoreBytes = 2048;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  using Turns = fireq::Turns<kWarpgroups>;
};

template <class C>
struct GemmW4a16LargeShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(1024) uint8_t store[C::kWarpgroups][2][C::kStoreBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][kBlockBytes<C::kScale>];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t turns[C::kWarpgroups];
};

template <class C>
constexpr KernelInfo kGemmW4a16LargeInfo{C::kFeatures, C::kTokens, 1, C::kStoreTokens, C::kCluster, C::kThreads,
                                         sizeof(GemmW4a16LargeShared<C>) + 1024, 1, kScaleBytes<C::kScale>};

/// One thread's part of fetching: part 0 this block's half of the activations for both, parts 1 and 2 a block of weights.
template <class C>
__device__ __forceinline__ void fetchW4a16Tiles(const GemmW4a16LargeParams& p, GemmW4a16LargeShared<C>& shared, const TileOrder& order, int part) {
  constexpr int kPart = C::kTokens / C::kCluster;
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const uint32_t rank = ptx::clusterRank(), full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t x = ptx::smemAddress(shared.x) + rank * (kPart * 128);
  const uint32_t weight = ptx::smemAddress(shared.weight) + (part - 1) * kBlock;
  const int groups = p.K / kGroupSize, blocks = (p.N + kBlockRows - 1) / kBlockRows;
  Ring<C::kStages> ring;
  for (int t = blockIdx.x / C::kCluster; t < order.count(); t += gridDim.x / C::kCluster) {
    int token, feature;
    order.locate(t, token, feature);
    const int firstBlock = (feature * C::kCluster + rank) * C::kWarpgroups;
    const int validBlocks = max(0, min(C::kWarpgroups, blocks - firstBlock));
    const uint8_t* from = p.weight + static_cast<size_t>(firstBlock + part - 1) * groups * kBlock;
    for (int g = 0; g < groups; g++, ring.advance(), from += kBlock) {
      const uint32_t barrier = full + ring.stage * 8;
      ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      if (part > 0) {
        if (part <= validBlocks) ptx::copyBulk(weight + ring.stage * (C::kWarpgroups * kBlock), from, kBlock, barrier);
        continue;
      }
      ptx::barrierArriveExpect(barrier, C::kXBytes + validBlocks * kBlock);
#pragma unroll
      for (int slice = 0; slice < 2; slice++)
        ptx::copyTile3Multicast(x + ring.stage * C::kXBytes + slice * (C::kTokens * 128), &p.x, 0, token * C::kTokens + rank * kPart,
                                2 * g + slice, barrier, (1 << C::kCluster) - 1);
    }
  }
}

/// Finishes a warpgroup's 64 features and stores them, kStoreTokens tokens at a time through two buffers.
template <class C>
struct StorePieces {
  static constexpr bool kSilu = C::kEpilogue == Epilogue::kSiluMul;
  static constexpr int kTiles = C::kStoreTokens / 8, kPieces = C::kTokens / C::kStoreTokens;  // of 16 × 8
  uint32_t buffers;
  int warpgroup;

  __device__ __forceinline__ void store(const GemmW4a16LargeParams& p, const float (&d)[C::kTokens / 2], const float (&scale)[2], int feature, int token) const {
    const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32, warpFeature = feature + warp * 16;
    const float2 bias = loadBias(p.operands.bias, warpFeature, p.N);
    const bool adds = !kSilu && p.operands.residual != nullptr;
    uint2 residual[kTiles];
    auto loadResidual = [&](int piece) {
#pragma unroll
      for (int i = 0; i < kTiles; i++)
        residual[i] = loadTile(p.operands.residual, p.N, p.M, warpFeature, token + (piece * kTiles + i) * 8);
    };
    if (adds) loadResidual(0);
#pragma unroll
    for (int piece = 0; piece < kPieces; piece++) {
      const uint32_t base = buffers + piece % 2 * C::kStoreBytes;
      float4 v[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; i++) {
        const int c = piece * kTiles + i;
        v[i] = make_float4(d[4 * c] * scale[0] + bias.x, d[4 * c + 1] * scale[0] + bias.x, d[4 * c + 2] * scale[1] + bias.y,
                           d[4 * c + 3] * scale[1] + bias.y);
        if (adds) addTile(v[i], residual[i]);
      }
      if (adds && piece + 1 < kPieces) loadResidual(piece + 1);
      stagePiece<C::kEpilogue, false>(base, v, warp, lane);
      ptx::fenceAsyncShared();
      // One barrier a piece: it also tells that the next piece's buffer has been read.
      if (thread == 0) ptx::storeWaitRead<0>();
      ptx::syncNamed(1 + warpgroup, 128);
      if (thread == 0) {
        ptx::storeTile(&p.out, base, kSilu ? feature / 2 : feature, token + piece * C::kStoreTokens);
        ptx::storeCommit();
      }
    }
  }
};

template <class C>
__device__ __forceinline__ void multiplyW4a16Tiles(const GemmW4a16LargeParams& p, GemmW4a16LargeShared<C>& shared, const TileOrder& order) {
  const uint32_t rank = ptx::clusterRank();
  uint32_t empty[C::kCluster];  // of each block
#pragma unroll
  for (int r = 0; r < C::kCluster; r++) empty[r] = ptx::clusterAddress(ptx::smemAddress(shared.empty), r);
  const int warpgroup = threadIdx.x / 128, clusters = gridDim.x / C::kCluster;
  const StorePieces<C> pieces{ptx::smemAddress(shared.store[warpgroup]), warpgroup};
  RescaledBf16Sum<C> sum(shared);
  Ring<C::kStages> ring;
  typename C::Turns turns(shared.turns);
  for (int t = blockIdx.x / C::kCluster; t < order.count(); t += clusters) {
    int token, feature;
    order.locate(t, token, feature);
    sum.add(ring, turns, p.K / kGroupSize, [&](int, int stage) {
      __syncwarp();
#pragma unroll
      for (int r = 0; r < C::kCluster; r++) ptx::barrierArriveCluster(empty[r] + stage * 8);
    });
    pieces.store(p, sum.d, sum.scale, (feature * C::kCluster + rank) * C::kFeatures + warpgroup * kBlockRows, token * C::kTokens);
  }
  if (threadIdx.x % 128 == 0) ptx::storeWait<0>();
}

template <class C>
__device__ __forceinline__ void gemmW4a16Large(const GemmW4a16LargeParams& p) {
  auto& shared = ptx::sharedMemory<GemmW4a16LargeShared<C>>();
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    beginRing(shared.full, shared.empty, C::kCluster * C::kWarpgroups * 128);
    for (int i = 0; i < C::kWarpgroups; i++) ptx::barrierInit(ptx::smemAddress(&shared.turns[i]), 4);
    ptx::barrierInitFence();
  }
  ptx::clusterArrive();
  ptx::clusterWait();
  ptx::waitForPrevious();
  const TileOrder order{(p.M + C::kTokens - 1) / C::kTokens, (p.N + C::kFeatures * C::kCluster - 1) / (C::kFeatures * C::kCluster),
                        p.tokenTilesPerSweep};
  if (threadIdx.x >= C::kWarpgroups * 128) {
    // The three warpgroups share the 3 · 168 registers a thread of the launch: 40 + 2 · 232. More would wait for ever.
    ptx::shrinkRegisters<40>();
    const int part = threadIdx.x / 32 % kFetchParts;
    if (threadIdx.x % 32 > 0 || part > C::kWarpgroups) return;  // lanes that waited for the others would wake at every poll
    fetchW4a16Tiles<C>(p, shared, order, part);
  } else {
    ptx::growRegisters<232>();
    multiplyW4a16Tiles<C>(p, shared, order);
  }
  // A block may still be signalled by its neighbour until that one is done too.
  ptx::clusterArrive();
  ptx::clusterWait();
}

}  // namespace fireq
