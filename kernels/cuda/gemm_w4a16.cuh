// INT4 weights × BF16 activations for up to some 200 tokens: D[M, N] = x[M, K] · W[N, K]ᵀ in BF16. Like gemm_small.cuh:
// a cluster shares one tile of features and cuts K among its blocks; partial sums meet in the blocks' shared memory, and
// the ring is filled with weights before the block waits for the previous kernel. Sums are kept in FP32 throughout.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "epilogue.cuh"
#include "gemm_small.cuh"
#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "ring.cuh"
#include "sums_bf16.cuh"

namespace fireq {

enum class SumKind { kByWarps, kPromoted, kRescaled };  // see sums_bf16.cuh

template <int kPerSm_, int kWarpgroups_, int kTokens_, int kBatch_, int kStages_, SumKind kSum_, Epilogue kEpilogue_, ScaleType kScale_>
struct GemmW4a16Config {
  static constexpr int kPerSm = kPerSm_;            // blocks that an SM holds
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kBatch = kBatch_;  // groups a stage
  static constexpr int kStages = kStages_;
  // Stages of weights fetched before the kernel before has ended. Large tiles wait for their activations behind them.
  static constexpr int kAhead = kTokens > 64 ? 3 : kStages;
  static constexpr SumKind kSum = kSum_;
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize * 2;  // a group
  static constexpr int kThreads = (kWarpgroups + 1) * 128;  // the last warpgroup fetches
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
  static constexpr int kPartialBytes = (kTiles + 7) * 512;        // their partial sums from at most eight blocks
  static constexpr bool kMeetInRing = kTokens >= 32;  // where the ring leaves no room beside it: costs a cluster's barrier
  static constexpr int kRingBytes = kStages * kBatch * (kXBytes + kWarpgroups * kBlockBytes<kScale>);
  static_assert(!kMeetInRing || kPartialBytes <= kRingBytes, "partial sums must fit the ring");
  // Registers: what the launch gives each thread, and what the multiplying threads have once the fetching ones give back.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kPerSm) / 8 * 8;
  static constexpr int kFetchRegisters = 32;
  static constexpr int kGrown = (kLaunchRegisters * (kWarpgroups + 1) - kFetchRegisters) / kWarpgroups / 8 * 8;
  static constexpr int kMultiplyRegisters = kGrown < 232 ? kGrown : 232;
};

/// GemmSmallParams with x: BF16 [K / 64, M, 64], box {64, kTokens, 2 · kBatch}, 128-byte swizzle; tokenScale is not read.
template <class C>
struct GemmW4a16Shared {
  alignas(1024) uint8_t x[C::kStages][C::kBatch][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][C::kBatch][kBlockBytes<C::kScale>];
  alignas(128) uint8_t partial[C::kMeetInRing ? 16 : C::kPartialBytes];  // float4 [tile of mine · splits + source][lane]
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t met;  // all partial sums of this block's tiles are here
  __device__ __forceinline__ uint8_t* partials() { return C::kMeetInRing ? &x[0][0][0] : partial; }
};

template <class C>
constexpr KernelInfo kGemmW4a16Info{C::kFeatures, C::kTokens, C::kBatch * 2, 0, 1, C::kThreads, sizeof(GemmW4a16Shared<C>) + 1024,
                                    1, kScaleBytes<C::kScale>};

/// The fetching warpgroup's part: its first warp the activations, the others the weights.
template <class C>
__device__ __forceinline__ void fetchW4a16(const GemmSmallParams& p, GemmW4a16Shared<C>& shared, const Place<C>& place, const GroupRange& range) {
  const Fetcher<C> fetcher(p, shared, place);
  const int part = threadIdx.x / 32 % kFetchParts;
  if (threadIdx.x % 32 != 0) return;
  if (part > 0) return fetcher.fetchWeights({0}, range, part);
  ptx::waitForPrevious();
  RingFrom<C::kStages> ring{0};
  for (int g = range.first; g < range.last; g += C::kBatch, ring.advance()) {
    const uint32_t barrier = fetcher.full + ring.stage * 8;
    if (g >= range.first + C::kStages * C::kBatch) ptx::barrierWait(fetcher.empty + ring.stage * 8, ring.parity ^ 1);
    ptx::barrierArriveExpect(barrier, C::kBatch * C::kXBytes + fetcher.validBlocks * min(C::kBatch, range.last - g) * Fetcher<C>::kBlock);
    ptx::copyTile3(fetcher.x + ring.stage * C::kBatch * C::kXBytes, &p.x, 0, place.token, 2 * g, barrier);
  }
}

/// acc = this warpgroup's sum over the range.
template <class C>
__device__ __forceinline__ void sumW4a16(GemmW4a16Shared<C>& shared, const GroupRange& range, float (&acc)[C::kTokens / 2]) {
  const Release<C> release(shared, range);
  if constexpr (C::kSum == SumKind::kByWarps) {
    sumByWarps<C>(shared, range.first, range.last, release, acc);
  } else if constexpr (C::kSum == SumKind::kPromoted) {
    sumPromoted<C>(shared, range.first, range.last, release, acc);
  } else {
    RescaledBf16Sum<C> sum(shared);
    Ring<C::kStages> ring;
    NoTurns turns;
    sum.add(ring, turns, range.count(), [&](int i, int stage) { release(range.first + i, stage); });
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; i++) acc[i] = sum.d[i] * sum.scale[i / 2 % 2];
  }
}

/// The multiplying warpgroups' part: sum, meet, store.
template <class C>
__device__ __forceinline__ void multiplyW4a16(const GemmSmallParams& p, GemmW4a16Shared<C>& shared, const Place<C>& place,
                                              const GroupRange& range, int myTiles) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, ranks = place.splits, rank = place.split;
  const float2 one = make_float2(1.f, 1.f);
  float acc[C::kTokens / 2];
  sumW4a16<C>(shared, range, acc);
  auto fragment = [&](int c) {  // the 16 × 8 tile of this warp at column c
    return make_float4(acc[4 * c], acc[4 * c + 1], acc[4 * c + 2], acc[4 * c + 3]);
  };

  // Tile c · warps + w is 16 features of warp w × 8 tokens of column c; block t % ranks adds up tile t.
  constexpr int kWarps = C::kWarpgroups * 4;
  const int firstFeature = place.featureTile * C::kFeatures;
  if (ranks == 1) {
    const TileWriter<C::kEpilogue> writer(p, firstFeature + warp * 16, place.token);
#pragma unroll
    for (int c = 0; c < C::kTokens / 8; c++) writer.write(c, fragment(c), one, writer.load(c));
    return;
  }
  ptx::clusterWait();  // all blocks have their barriers
  if constexpr (C::kMeetInRing) {
    ptx::clusterArriveRelaxed();
    ptx::clusterWait();  // all blocks have left their rings
  }
  const auto* partials = reinterpret_cast<const float4*>(shared.partials());
  const uint32_t partial = ptx::smemAddress(partials), met = ptx::smemAddress(&shared.met);
#pragma unroll
  for (int c = 0; c < C::kTokens / 8; c++) {
    const int tile = c * kWarps + warp, owner = tile % ranks;
    const uint32_t slot = (tile / ranks * ranks + rank) * 512 + lane * 16;
    ptx::storeAsync(ptx::clusterAddress(partial + slot, owner), fragment(c), ptx::clusterAddress(met, owner));
  }
  ptx::barrierWait(met, 0);
  for (int i = warp; i < myTiles; i += kWarps) {
    const int tile = i * ranks + rank, c = tile / kWarps;
    float4 sum = partials[i * ranks * 32 + lane];
    for (int source = 1; source < ranks; source++) {
      const float4 v = partials[(i * ranks + source) * 32 + lane];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    const TileWriter<C::kEpilogue> writer(p, firstFeature + tile % kWarps * 16, place.token + c * 8);
    writer.write(0, sum, one, writer.load(0));
  }
}

template <class C>
__device__ __forceinline__ void gemmW4a16(const GemmSmallParams& p) {
  static_assert(C::kPerSm * (kGemmW4a16Info<C>.sharedBytes + 1024) <= 228 * 1024, "as many blocks must fit an SM");
  auto& shared = ptx::sharedMemory<GemmW4a16Shared<C>>();
  const Place<C> place;
  const GroupRange range(p.K / kGroupSize, place.split, place.splits);

  ptx::launchDependents();
  const uint32_t met = ptx::smemAddress(&shared.met);
  const int myTiles = (C::kTiles - place.split + place.splits - 1) / place.splits;
  if (threadIdx.x == 0) {
    beginRing(shared.full, shared.empty, C::kWarpgroups * 128);
    ptx::barrierInit(met, 1);
    ptx::barrierInitFence();
    if (place.splits > 1) ptx::barrierArriveExpect(met, myTiles * place.splits * 512);
  }
  __syncthreads();
  // Before a block writes to a neighbour, that one must have started and initialized its barriers.
  if (place.splits > 1) ptx::clusterArriveRelaxed();
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<C::kFetchRegisters>();
    fetchW4a16<C>(p, shared, place, range);
  } else {
    ptx::growRegisters<C::kMultiplyRegisters>();
    ptx::waitForPrevious();
    multiplyW4a16<C>(p, shared, place, range, myTiles);
  }
}

}  // namespace fireq
