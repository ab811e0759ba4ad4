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
  CUtensorMap x;  // E4M3 [M, K], box {128, kTokens}, 128-byte swizzle
  const uint8_t* weight;
  const float* tokenScale;
  uint16_t* out;  // BF16 [M, N]
  int M, N, K;
};

template <int kWarpgroups_, int kTokens_, int kStages_, Codes kCodes_, ScaleType kScale_>
struct GemmSmallConfig {
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;
  static constexpr int kThreads = kWarpgroups * 128;
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
};

template <class C>
struct GemmSmallShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][kBlockBytes<C::kScale>];
  alignas(128) float4 partial[C::kTiles + 8][32];  // [tile of mine · cluster + source][lane]
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t met;  // all partial sums of this block's tiles are here
};

template <class C>
constexpr KernelInfo kGemmSmallInfo{C::kFeatures, C::kTokens, 0, C::kThreads, sizeof(GemmSmallShared<C>) + 1024,
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
  __device__ __forceinline__ void fetchWeight(int stage, int g) const {
    ptx::barrierArriveExpect(full + stage * 8, C::kXBytes + validBlocks * kBlock);
    for (int b = 0; b < validBlocks; b++)
      ptx::copyBulk(weight + (stage * C::kWarpgroups + b) * kBlock, from + (static_cast<size_t>(b) * groups + g) * kBlock,
                    kBlock, full + stage * 8);
  }
  __device__ __forceinline__ void fetchX(int stage, int g) const {
    ptx::copyTile(x + stage * C::kXBytes, map, g * kGroupSize, token, full + stage * 8);
  }
};

/// acc[c][…] = this warpgroup's 64 × kTokens sum over the range, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlice(GemmSmallShared<C>& shared, const Fetcher<C>& fetcher, GroupRange range,
                                         float (&acc)[C::kTokens / 2]) {
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * kBlock;
  const uint32_t tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  int stage = 0, parity = 0;

  struct Operands {
    uint32_t codes[16];
    float scale[2];
  } operands[2];
  auto load = [&](Operands& to) {
    ptx::barrierWait(full + stage * 8, parity);
    const uint32_t block = weight + stage * (C::kWarpgroups * kBlock);
    decode<C::kCodes>(ptx::loadShared16(block + thread * 16), ptx::loadShared16(block + 2048 + thread * 16), to.codes);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
      to.scale[half] =
          kCodeUnit * (C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at));
    }
  };

  float sum[C::kTokens / 2];
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = sum[i] = 0.f;
  if (range.first < range.last) load(operands[0]);
  for (int g = range.first; g < range.last; g += 2) {
#pragma unroll
    for (int u = 0; u < 2; u++) {
      if (g + u >= range.last) break;
      wgmma::pin(sum);
      wgmma::pin(operands[u].codes);
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < 4; step++)
        wgmma::Wgmma<C::kTokens>::e4m3(sum, &operands[u].codes[4 * step],
                                       wgmma::descriptor(tile + stage * (C::kXBytes / 16) + 2 * step), step != 0);
      wgmma::commit();
      const int current = stage, emptyParity = parity;
      if (++stage == C::kStages) stage = 0, parity ^= 1;
      if (g + u + 1 < range.last) load(operands[u ^ 1]);
      // The stage before this one is free as soon as the slowest warp has left it.
      if (threadIdx.x == 0 && g + u > range.first && g + u - 1 + C::kStages < range.last) {
        const int previous = current == 0 ? C::kStages - 1 : current - 1;
        ptx::barrierWait(empty + previous * 8, current == 0 ? emptyParity ^ 1 : emptyParity);
        fetcher.fetchWeight(previous, g + u - 1 + C::kStages);
        fetcher.fetchX(previous, g + u - 1 + C::kStages);
      }
      __syncwarp();
      wgmma::wait<0>();
      wgmma::pin(sum);
      if (lane == 0) ptx::barrierArrive(empty + current * 8);
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) acc[i] += operands[u].scale[i / 2 % 2] * sum[i];
    }
  }
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
  const int ahead = min(C::kStages, range.last - range.first);
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kWarpgroups * 4);
    }
    ptx::barrierInit(met, 1);
    ptx::barrierInitFence();
    for (int i = 0; i < ahead; i++) fetcher.fetchWeight(i, range.first + i);
    if (ranks > 1) ptx::barrierArriveExpect(met, myTiles * ranks * 512);
  }
  __syncthreads();
  if (ranks > 1) ptx::clusterArriveRelaxed();
  ptx::waitForPrevious();
  if (threadIdx.x == 0)
    for (int i = 0; i < ahead; i++) fetcher.fetchX(i, range.first + i);
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
