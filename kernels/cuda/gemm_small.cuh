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

template <int kWarpgroups_, int kTokens_, int kBatch_, int kRows_, bool kFast_, int kStages_, Codes kCodes_, ScaleType kScale_>
struct GemmSmallConfig {
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kBatch = kBatch_;  // groups a stage; their multiplications are independent and fly together
  static constexpr int kRows = kRows_;    // neighbouring feature tiles a cluster, which share activations
  static constexpr bool kFast = kFast_;  // rescale one accumulator instead of promoting each group's sum
  static constexpr int kStages = kStages_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;  // a group
  static constexpr int kThreads = kWarpgroups * 128;
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
  static constexpr int kPartialBytes = (kTiles + 8) * 512;        // their partial sums from all blocks
  static constexpr int kRingBytes = kStages * kBatch * (kXBytes + kWarpgroups * kBlockBytes<kScale>);
  // Partial sums that would take too much shared memory beside the ring take the ring's place when it is done.
  static constexpr bool kReuseRing = kTokens >= 128;
  static_assert(kRows == 1 || kBatch == 1, "a shared box holds one group");
  static_assert(!kFast || kBatch == 1, "a rescaled accumulator takes one group at a time");
  static_assert(!kReuseRing || kPartialBytes <= kRingBytes, "partial sums must fit the ring");
};

template <class C>
struct GemmSmallShared {
  alignas(1024) uint8_t x[C::kStages][C::kBatch][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][C::kBatch][kBlockBytes<C::kScale>];
  alignas(128) uint8_t partial[C::kReuseRing ? 16 : C::kPartialBytes];  // float4 [tile of mine · splits + source][lane]
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t met;  // all partial sums of this block's tiles are here
};

template <class C>
constexpr KernelInfo kGemmSmallInfo{C::kFeatures, C::kTokens, C::kBatch, C::kRows, C::kThreads, sizeof(GemmSmallShared<C>) + 1024,
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
  uint32_t full, empty, emptyOfLane, x, weight;
  int groups, validBlocks, token, row, mask;

  __device__ __forceinline__ Fetcher(const GemmSmallParams& p, GemmSmallShared<C>& shared, int featureTile, int split, int row)
      : map(&p.x),
        full(ptx::smemAddress(shared.full)),
        empty(ptx::smemAddress(shared.empty)),
        emptyOfLane(ptx::clusterAddress(empty, split * C::kRows + threadIdx.x % 32 % C::kRows)),
        x(ptx::smemAddress(shared.x)),
        weight(ptx::smemAddress(shared.weight)),
        groups(p.K / kGroupSize),
        token(blockIdx.y * C::kTokens),
        row(row),
        mask(((1 << C::kRows) - 1) << (split * C::kRows)) {
    const int firstBlock = featureTile * C::kWarpgroups;
    validBlocks = max(0, min(C::kWarpgroups, (p.N + kBlockRows - 1) / kBlockRows - firstBlock));
    from = p.weight + static_cast<size_t>(firstBlock) * groups * kBlock;
  }
  __device__ __forceinline__ void fetchWeight(int stage, int g, int count) const {
    ptx::barrierArriveExpect(full + stage * 8, C::kBatch * C::kXBytes + validBlocks * count * kBlock);
    for (int b = 0; b < validBlocks; b++)
      ptx::copyBulk(weight + (stage * C::kWarpgroups + b) * C::kBatch * kBlock,
                    from + (static_cast<size_t>(b) * groups + g) * kBlock, count * kBlock, full + stage * 8);
  }
  __device__ __forceinline__ void fetchX(int stage, int g) const {
    if constexpr (C::kRows > 1)
      ptx::copyTile3Multicast(x + stage * C::kXBytes + row * (C::kXBytes / C::kRows), map, 0,
                              token + row * (C::kTokens / C::kRows), g, full + stage * 8, mask);
    else
      ptx::copyTile3(x + stage * C::kBatch * C::kXBytes, map, 0, token, g, full + stage * 8);
  }

  /// One thread fetches again into the stage before this one, once the slowest warp that reads it has left it.
  __device__ __forceinline__ void refill(const GroupRange& range, int g, int stage, int parity) const {
    const int next = g + (C::kStages - 1) * C::kBatch;
    if (threadIdx.x == 0 && g > range.first && next < range.last) {
      const int previous = stage == 0 ? C::kStages - 1 : stage - 1;
      ptx::barrierWait(empty + previous * 8, stage == 0 ? parity ^ 1 : parity);
      fetchWeight(previous, next, min(C::kBatch, range.last - next));
      fetchX(previous, next);
    }
    __syncwarp();
  }
  /// This warp has left the stage. Told only to a block that will refill, so that none is told anything after its end.
  __device__ __forceinline__ void release(const GroupRange& range, int g, int stage) const {
    if (threadIdx.x % 32 < C::kRows && g + C::kStages * C::kBatch < range.last)
      ptx::barrierArriveCluster(emptyOfLane + stage * 8);
  }
};

/// acc[…] = this warpgroup's 64 × kTokens sum over the range, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlice(GemmSmallShared<C>& shared, const Fetcher<C>& fetcher, GroupRange range,
                                         float (&acc)[C::kTokens / 2]) {
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full);
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
    fetcher.refill(range, g, stage, parity);
    wgmma::wait<0>();
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) wgmma::pin(sum[b]);
    fetcher.release(range, g, stage);
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

/// The same with one accumulator, rescaled in place before each group as in gemm_large.cuh.
template <class C>
__device__ __forceinline__ void sumSliceFast(GemmSmallShared<C>& shared, const Fetcher<C>& fetcher, GroupRange range,
                                             float (&acc)[C::kTokens / 2]) {
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full);
  const uint32_t weight = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * kBlock;
  const uint32_t tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  int stage = 0, parity = 0;
  uint32_t codes[2][16];
  float scale[2] = {1.f, 1.f}, ratio[2];
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = 0.f;

  auto load = [&](uint32_t (&to)[16]) {
    ptx::barrierWait(full + stage * 8, parity);
    const uint32_t block = weight + stage * C::kWarpgroups * kBlock;
    decode<C::kCodes>(ptx::loadShared16(block + thread * 16), ptx::loadShared16(block + 2048 + thread * 16), to);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
      const float next = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
      ratio[half] = scale[half] * kRounding * ptx::reciprocal(next);
      scale[half] = next;
    }
    wgmma::pin(to);
  };
  if (range.first < range.last) load(codes[0]);
  for (int g = range.first; g < range.last; g += 2) {
#pragma unroll
    for (int u = 0; u < 2; u++) {
      if (g + u >= range.last) break;
      wgmma::pin(acc);
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) acc[i] *= ratio[i / 2 % 2];
      wgmma::pin(acc);
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < 4; step++)
        wgmma::Wgmma<C::kTokens>::e4m3(acc, &codes[u][4 * step],
                                       wgmma::descriptor(tile + stage * (C::kXBytes / 16) + 2 * step), 1);
      wgmma::commit();
      const int current = stage, currentParity = parity;
      if (++stage == C::kStages) stage = 0, parity ^= 1;
      if (g + u + 1 < range.last) load(codes[u ^ 1]);
      fetcher.refill(range, g + u, current, currentParity);
      wgmma::wait<0>();
      wgmma::pin(acc);
      fetcher.release(range, g + u, current);
    }
  }
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] *= kCodeUnit * scale[i / 2 % 2];
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
  const int inCluster = ptx::clusterRank();
  const int ranks = ptx::clusterSize() / C::kRows, rank = inCluster / C::kRows, tileRow = inCluster % C::kRows;
  const int featureTile = blockIdx.x / (ranks * C::kRows) * C::kRows + tileRow, token = blockIdx.y * C::kTokens;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const GroupRange range(p.K / kGroupSize, rank, ranks);

  ptx::launchDependents();
  const uint32_t met = ptx::smemAddress(&shared.met);
  const int myTiles = (C::kTiles - rank + ranks - 1) / ranks;
  const Fetcher<C> fetcher(p, shared, featureTile, rank, tileRow);
  const int ahead = min(range.last, range.first + C::kStages * C::kBatch);
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kRows * C::kWarpgroups * 4);
    }
    ptx::barrierInit(met, 1);
    ptx::barrierInitFence();
    for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++)
      fetcher.fetchWeight(i, g, min(C::kBatch, range.last - g));
    if (ranks > 1) ptx::barrierArriveExpect(met, myTiles * ranks * 512);
  }
  __syncthreads();
  // Before a block writes to a neighbour, that one must have started and initialized its barriers.
  if (ranks * C::kRows > 1) ptx::clusterArriveRelaxed();
  if (C::kRows > 1) ptx::clusterWait();
  ptx::waitForPrevious();
  if (threadIdx.x == 0)
    for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++) fetcher.fetchX(i, g);
  __syncwarp();
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = token + threadIdx.x < p.M ? __ldg(p.tokenScale + token + threadIdx.x) : 0.f;
  float acc[C::kTokens / 2];
  if constexpr (C::kFast)
    sumSliceFast<C>(shared, fetcher, range, acc);
  else
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
  if (C::kReuseRing && C::kRows > 1) ptx::clusterArriveRelaxed();
  if (C::kReuseRing && C::kRows == 1) {
    ptx::clusterWait();
    ptx::clusterArriveRelaxed();
  }
  if (C::kReuseRing || C::kRows == 1) ptx::clusterWait();
  const auto* partials = reinterpret_cast<const float4*>(C::kReuseRing ? shared.x[0][0] : shared.partial);
  const uint32_t partial = ptx::smemAddress(partials);
#pragma unroll
  for (int c = 0; c < C::kTokens / 8; c++) {
    const int tile = c * kWarps + warp, owner = tile % ranks;
    const uint32_t slot = (tile / ranks * ranks + rank) * 512 + lane * 16;
    ptx::storeAsync(ptx::clusterAddress(partial + slot, owner * C::kRows + tileRow),
                    make_float4(acc[4 * c], acc[4 * c + 1], acc[4 * c + 2], acc[4 * c + 3]),
                    ptx::clusterAddress(met, owner * C::kRows + tileRow));
  }
  ptx::syncNamed(1, kWarps * 32);  // the token scales
  ptx::barrierWait(met, 0);
  for (int i = warp; i < myTiles; i += kWarps) {
    const int tile = i * ranks + rank, c = tile / kWarps;
    float4 sum = partials[i * ranks * 32 + lane];
    for (int source = 1; source < ranks; source++) {
      const float4 v = partials[(i * ranks + source) * 32 + lane];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    storeTile16x8(p, sum, *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]),
                  firstFeature + tile % kWarps * 16, token + c * 8);
  }
}

}  // namespace fireq
