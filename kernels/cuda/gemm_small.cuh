// INT4 weights × FP8 activations for few tokens (M ≤ 128): D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ in BF16.
//
// Reading the weights once is all the time there is, so everything serves that:
//
// * a cluster shares one tile of features and cuts K among its blocks, so that every SM reads; partial sums meet in the
//   blocks' shared memory, each block adding up its share in a fixed order: deterministic, and no trip through the L2;
// * the whole ring is filled with weights before the block waits for the previous kernel: weights don't depend on it. Two
//   blocks fit an SM, so that one kernel's weights arrive while the previous one still multiplies;
// * each group's sum leaves the tensor core's accumulator times its scale in FP32, so this path is the precise one.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmSmallParams {
  CUtensorMap x;  // E4M3 [K / 128, M, 128], box {128, kTokens, kBatch}, 128-byte swizzle
  const uint8_t* weight;
  const float* tokenScale;
  uint16_t* out;  // BF16 [M, N]
  int M, N, K;
};

template <int kWarpgroups_, int kTokens_, int kBatch_, int kStages_, Codes kCodes_, ScaleType kScale_>
struct GemmSmallConfig {
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kBatch = kBatch_;  // groups a stage; their multiplications are independent and fly together
  static constexpr int kStages = kStages_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;  // a group
  static constexpr int kThreads = kWarpgroups * 128;
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
};

template <class C>
struct GemmSmallShared {
  alignas(1024) uint8_t x[C::kStages][C::kBatch][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][C::kBatch][kBlockBytes<C::kScale>];
  alignas(128) float4 partial[C::kTiles + 8][32];  // [tile of mine · cluster + source][lane]
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t met;  // all partial sums of this block's tiles are here
};

template <class C>
constexpr KernelInfo kGemmSmallInfo{C::kFeatures, C::kTokens, C::kBatch, 0, C::kThreads, sizeof(GemmSmallShared<C>) + 1024,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// The groups of K that one block of a cluster adds up.
struct GroupRange {
  int first, last;
  __device__ __forceinline__ GroupRange(int groups, int rank, int ranks)
      : first(groups * rank / ranks), last(groups * (rank + 1) / ranks) {}
};

/// What one thread needs to fetch groups into the ring.
template <class C>
struct Fetcher {
  static constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const CUtensorMap* map;
  const uint8_t* from;
  uint32_t full, x, weight;
  int groups, validBlocks, token;

  __device__ __forceinline__ Fetcher(const GemmSmallParams& p, GemmSmallShared<C>& shared, int featureTile)
      : map(&p.x),
        full(ptx::smemAddress(shared.full)),
        x(ptx::smemAddress(shared.x)),
        weight(ptx::smemAddress(shared.weight)),
        groups(p.K / kGroupSize),
        token(blockIdx.y * C::kTokens) {
    const int firstBlock = featureTile * C::kWarpgroups;
    validBlocks = min(C::kWarpgroups, (p.N + kBlockRows - 1) / kBlockRows - firstBlock);
    from = p.weight + static_cast<size_t>(firstBlock) * groups * kBlock;
  }
  __device__ __forceinline__ void fetchWeight(int stage, int g, int count) const {
    ptx::barrierArriveExpect(full + stage * 8, C::kBatch * C::kXBytes + validBlocks * count * kBlock);
    for (int b = 0; b < validBlocks; b++)
      ptx::copyBulk(weight + (stage * C::kWarpgroups + b) * C::kBatch * kBlock,
                    from + (static_cast<size_t>(b) * groups + g) * kBlock, count * kBlock, full + stage * 8);
  }
  __device__ __forceinline__ void fetchX(int stage, int g) const {
    ptx::copyTile3(x + stage * C::kBatch * C::kXBytes, map, 0, token, g, full + stage * 8);
  }
};

/// acc[…] = this warpgroup's 64 × kTokens sum over the range, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlice(GemmSmallShared<C>& shared, const Fetcher<C>& fetcher, GroupRange range,
                                         float (&acc)[C::kTokens / 2]) {
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * C::kBatch * kBlock;
  const uint32_t tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  int stage = 0, parity = 0;
  float sum[C::kBatch][C::kTokens / 2];
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = 0.f;

  for (int g = range.first; g < range.last; g += C::kBatch) {
    uint32_t codes[C::kBatch][16];
    float scale[C::kBatch][2];
    ptx::barrierWait(full + stage * 8, parity);
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      const uint32_t block = weight + (stage * C::kWarpgroups * C::kBatch + b) * kBlock;
      decode<C::kCodes>(ptx::loadShared16(block + thread * 16), ptx::loadShared16(block + 2048 + thread * 16), codes[b]);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
        scale[b][half] = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
      }
    }
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      wgmma::pin(sum[b]);
      wgmma::pin(codes[b]);
    }
    wgmma::fence();
#pragma unroll
    for (int step = 0; step < 4; step++)
#pragma unroll
      for (int b = 0; b < C::kBatch; b++)
        wgmma::Wgmma<C::kTokens>::e4m3(
            sum[b], &codes[b][4 * step],
            wgmma::descriptor(tile + (stage * C::kBatch + b) * (C::kXBytes / 16) + 2 * step), step != 0);
    wgmma::commit();
    // The stage before this one is free as soon as the slowest warp has left it.
    const int next = g + (C::kStages - 1) * C::kBatch;
    if (threadIdx.x == 0 && g > range.first && next < range.last) {
      const int previous = stage == 0 ? C::kStages - 1 : stage - 1;
      ptx::barrierWait(empty + previous * 8, stage == 0 ? parity ^ 1 : parity);
      fetcher.fetchWeight(previous, next, min(C::kBatch, range.last - next));
      fetcher.fetchX(previous, next);
    }
    __syncwarp();
    wgmma::wait<0>();
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) wgmma::pin(sum[b]);
    if (lane == 0) ptx::barrierArrive(empty + stage * 8);
    if (++stage == C::kStages) stage = 0, parity ^= 1;
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      if (b > 0 && g + b >= range.last) break;  // the rest of the last stage is not ours, or not written
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) acc[i] += scale[b][i / 2 % 2] * sum[b][i];
    }
  }
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] *= kCodeUnit;
}

/// Writes a warp's 16 features × 8 tokens, given in the fragment layout of wgmma.
__device__ __forceinline__ void storeTile16x8(const GemmSmallParams& p, float4 d, float2 scale, int feature, int token) {
  const int lane = threadIdx.x % 32;
  if (feature >= p.N) return;  // N is a multiple of 16
  const uint32_t low = ptx::transposeMatrix(ptx::packBf16(d.x * scale.x, d.y * scale.y));
  const uint32_t high = ptx::transposeMatrix(ptx::packBf16(d.z * scale.x, d.w * scale.y));
  if (token + lane / 4 >= p.M) return;
  uint16_t* to = p.out + static_cast<size_t>(token + lane / 4) * p.N + feature + lane % 4 * 2;
  *reinterpret_cast<uint32_t*>(to) = low;
  *reinterpret_cast<uint32_t*>(to + 8) = high;
}

template <class C>
__device__ __forceinline__ void gemmSmall(const GemmSmallParams& p) {
  extern __shared__ uint8_t raw[];
  auto& shared = *reinterpret_cast<GemmSmallShared<C>*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const int ranks = ptx::clusterSize(), rank = ptx::clusterRank();
  const int featureTile = blockIdx.x / ranks, token = blockIdx.y * C::kTokens;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const GroupRange range(p.K / kGroupSize, rank, ranks);

  ptx::launchDependents();
  const uint32_t met = ptx::smemAddress(&shared.met);
  const int myTiles = (C::kTiles - rank + ranks - 1) / ranks;
  const Fetcher<C> fetcher(p, shared, featureTile);
  const int ahead = min(range.last, range.first + C::kStages * C::kBatch);
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kWarpgroups * 4);
    }
    ptx::barrierInit(met, 1);
    ptx::barrierInitFence();
    for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++)
      fetcher.fetchWeight(i, g, min(C::kBatch, range.last - g));
    if (ranks > 1) ptx::barrierArriveExpect(met, myTiles * ranks * 512);
  }
  __syncthreads();
  if (ranks > 1) ptx::clusterArriveRelaxed();
  ptx::waitForPrevious();
  if (threadIdx.x == 0)
    for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++) fetcher.fetchX(i, g);
  __syncwarp();
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = token + threadIdx.x < p.M ? __ldg(p.tokenScale + token + threadIdx.x) : 0.f;
  float acc[C::kTokens / 2];
  sumSlice<C>(shared, fetcher, range, acc);

  // Tile c · warps + w is 16 features of warp w × 8 tokens of column c; block t % ranks adds up tile t.
  constexpr int kWarps = C::kWarpgroups * 4;
  const int firstFeature = featureTile * C::kFeatures;
  if (ranks == 1) {
    ptx::syncNamed(1, kWarps * 32);
#pragma unroll
    for (int c = 0; c < C::kTokens / 8; c++)
      storeTile16x8(p, make_float4(acc[4 * c], acc[4 * c + 1], acc[4 * c + 2], acc[4 * c + 3]),
                    *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]), firstFeature + warp * 16,
                    token + c * 8);
    return;
  }
  ptx::clusterWait();  // every block has started and initialized its barrier
  const uint32_t partial = ptx::smemAddress(shared.partial);
#pragma unroll
  for (int c = 0; c < C::kTokens / 8; c++) {
    const int tile = c * kWarps + warp, owner = tile % ranks;
    const uint32_t slot = (tile / ranks * ranks + rank) * 512 + lane * 16;
    ptx::storeAsync(ptx::clusterAddress(partial + slot, owner),
                    make_float4(acc[4 * c], acc[4 * c + 1], acc[4 * c + 2], acc[4 * c + 3]),
                    ptx::clusterAddress(met, owner));
  }
  ptx::syncNamed(1, kWarps * 32);  // the token scales
  ptx::barrierWait(met, 0);
  for (int i = warp; i < myTiles; i += kWarps) {
    const int tile = i * ranks + rank, c = tile / kWarps;
    float4 sum = shared.partial[i * ranks][lane];
    for (int source = 1; source < ranks; source++) {
      const float4 v = shared.partial[i * ranks + source][lane];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    storeTile16x8(p, sum, *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]),
                  firstFeature + tile % kWarps * 16, token + c * 8);
  }
}

}  // namespace fireq
