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

#include "epilogue.cuh"
#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmSmallParams {
  CUtensorMap x;  // E4M3 [K / 128, M, 128], box {128, kTokens, kBatch}, 128-byte swizzle
  const uint8_t* weight;
  const float* tokenScale;
  uint16_t* out;  // BF16 [M, N], or [M, N / 2]
  EpilogueOperands operands;
  int M, N, K;
};

template <int kPerSm_, int kWarpgroups_, int kTokens_, int kBatch_, int kRows_, bool kFast_, int kStages_,
          Epilogue kEpilogue_, Codes kCodes_, ScaleType kScale_>
struct GemmSmallConfig {
  static constexpr int kPerSm = kPerSm_;  // blocks that an SM holds
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kBatch = kBatch_;  // groups a stage; their multiplications are independent and fly together
  static constexpr int kRows = kRows_;    // neighbouring feature tiles a cluster, which share activations
  static constexpr bool kFast = kFast_;  // rescale one accumulator instead of promoting each group's sum
  static constexpr int kStages = kStages_;
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  // Accumulators of at most 64 tokens: ptxas wants one instruction's registers within what the launch gives.
  static constexpr int kParts = kTokens > 64 ? kTokens / 64 : 1;
  static constexpr int kPartTokens = kTokens / kParts;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;  // a group
  static constexpr int kThreads = (kWarpgroups + 1) * 128;  // the last warpgroup fetches
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
  static constexpr int kPartialBytes = (kTiles + 8) * 512;        // their partial sums from all blocks
  static constexpr int kRingBytes = kStages * kBatch * (kXBytes + kWarpgroups * kBlockBytes<kScale>);
  // Registers: what the launch gives each thread, and what the multiplying threads have once the fetching ones give back.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kPerSm) / 8 * 8;
  static constexpr int kFetchRegisters = 24;
  static constexpr int kGrown = (kLaunchRegisters * (kWarpgroups + 1) - kFetchRegisters) / kWarpgroups / 8 * 8;
  static constexpr int kMultiplyRegisters = kGrown < 232 ? kGrown : 232;
  // Partial sums that would take too much shared memory beside the ring take the ring's place when it is done.
  static constexpr bool kReuseRing = kTokens >= 128;
  static_assert(kParts == 1 || kFast, "more than 64 tokens need the rescaled accumulator");
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
constexpr KernelInfo kGemmSmallInfo{C::kFeatures, C::kTokens, C::kBatch, 0, C::kRows, C::kThreads, sizeof(GemmSmallShared<C>) + 1024,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// The groups of K that one block of a cluster adds up.
struct GroupRange {
  int first, last;
  __device__ __forceinline__ GroupRange(int groups, int rank, int ranks)
      : first(groups * rank / ranks), last(groups * (rank + 1) / ranks) {}
};

/// Which features, tokens and part of K a block takes. In a cluster, blocks of one part of K are neighbours.
template <class C>
struct Place {
  int splits, split, row, featureTile, token;
  __device__ __forceinline__ Place() {
    const int rank = ptx::clusterRank(), size = ptx::clusterSize();
    splits = size / C::kRows, split = rank / C::kRows, row = rank % C::kRows;
    featureTile = blockIdx.x / size * C::kRows + row, token = blockIdx.y * C::kTokens;
  }
};

/// What one thread needs to fetch groups into the ring.
template <class C>
struct Fetcher {
  static constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const CUtensorMap* map;
  const uint8_t* from;
  uint32_t full, empty, emptyOfLane, x, weight;
  int groups, validBlocks, token, row, mask;

  __device__ __forceinline__ Fetcher(const GemmSmallParams& p, GemmSmallShared<C>& shared, const Place<C>& place)
      : map(&p.x),
        full(ptx::smemAddress(shared.full)),
        empty(ptx::smemAddress(shared.empty)),
        emptyOfLane(ptx::clusterAddress(empty, place.split * C::kRows + threadIdx.x % 32 % C::kRows)),
        x(ptx::smemAddress(shared.x)),
        weight(ptx::smemAddress(shared.weight)),
        groups(p.K / kGroupSize),
        token(place.token),
        row(place.row),
        mask(((1 << C::kRows) - 1) << (place.split * C::kRows)) {
    const int firstBlock = place.featureTile * C::kWarpgroups;
    validBlocks = max(0, min(C::kWarpgroups, (p.N + kBlockRows - 1) / kBlockRows - firstBlock));
    from = p.weight + static_cast<size_t>(firstBlock) * groups * kBlock;
  }
  __device__ __forceinline__ void fetchWeight(int stage, int g, int count) const {
    ptx::barrierArriveExpect(full + stage * 8, C::kBatch * C::kXBytes + validBlocks * count * kBlock);
#pragma unroll 1
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

  /// Fills the ring as its stages become free, until the range is done.
  __device__ __forceinline__ void fetchRest(const GroupRange& range) const {
    int stage = 0, parity = 0;
    for (int g = range.first + C::kStages * C::kBatch; g < range.last; g += C::kBatch) {
      ptx::barrierWait(empty + stage * 8, parity);
      fetchWeight(stage, g, min(C::kBatch, range.last - g));
      fetchX(stage, g);
      if (++stage == C::kStages) stage = 0, parity ^= 1;
    }
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
                                             float (&acc)[C::kParts][C::kPartTokens / 2]) {
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full);
  const uint32_t weight = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * kBlock;
  const uint32_t tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  int stage = 0, parity = 0;
  constexpr bool kAhead = C::kParts == 1;  // is there room for the next group's codes?
  uint4 low, high;
  float next[2], scale[2] = {1.f, 1.f};
#pragma unroll
  for (int part = 0; part < C::kParts; part++)
#pragma unroll
    for (int i = 0; i < C::kPartTokens / 2; i++) acc[part][i] = 0.f;

  auto load = [&] {
    ptx::barrierWait(full + stage * 8, parity);
    const uint32_t block = weight + stage * C::kWarpgroups * kBlock;
    low = ptx::loadShared16(block + thread * 16), high = ptx::loadShared16(block + 2048 + thread * 16);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
      next[half] = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
    }
  };
  if (kAhead && range.first < range.last) load();
#pragma unroll 1
  for (int g = range.first; g < range.last; g++) {
    uint32_t codes[16];
    if (!kAhead) load();
    decode<C::kCodes>(low, high, codes);
    float ratio[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
      ratio[half] = scale[half] * kRounding * ptx::reciprocal(next[half]);
      scale[half] = next[half];
    }
#pragma unroll
    for (int part = 0; part < C::kParts; part++) {
#pragma unroll
      for (int i = 0; i < C::kPartTokens / 2; i++) acc[part][i] *= ratio[i / 2 % 2];
      wgmma::pin(acc[part]);
    }
    wgmma::pin(codes);
    wgmma::fence();
#pragma unroll
    for (int part = 0; part < C::kParts; part++)
#pragma unroll
      for (int step = 0; step < 4; step++)
        wgmma::Wgmma<C::kPartTokens>::e4m3(
            acc[part], &codes[4 * step],
            wgmma::descriptor(tile + stage * (C::kXBytes / 16) + part * (C::kPartTokens * kGroupSize / 16) + 2 * step), 1);
    wgmma::commit();
    const int current = stage;
    if (++stage == C::kStages) stage = 0, parity ^= 1;
    if (kAhead && g + 1 < range.last) load();
    wgmma::wait<0>();
#pragma unroll
    for (int part = 0; part < C::kParts; part++) wgmma::pin(acc[part]);
    fetcher.release(range, g, current);
  }
#pragma unroll
  for (int part = 0; part < C::kParts; part++)
#pragma unroll
    for (int i = 0; i < C::kPartTokens / 2; i++) acc[part][i] *= kCodeUnit * scale[i / 2 % 2];
}

/// Finishes and writes a warp's 16 features × 8 tokens.
template <Epilogue kEpilogue>
__device__ __forceinline__ void storeTile16x8(const GemmSmallParams& p, float4 d, float2 scale, int feature, int token) {
  const int lane = threadIdx.x % 32, row = token + lane / 4;
  if (feature >= p.N) return;  // N is a multiple of 16
  const float2 bias = loadBias(p.operands.bias, feature, p.N);
  d = make_float4(d.x * scale.x + bias.x, d.y * scale.y + bias.x, d.z * scale.x + bias.y, d.w * scale.y + bias.y);
  if constexpr (kEpilogue == Epilogue::kSiluMul) {
    const uint32_t v = ptx::transposeMatrix(ptx::packBf16(siluMul(d.x, d.z), siluMul(d.y, d.w)));
    if (row >= p.M) return;
    *reinterpret_cast<uint32_t*>(p.out + static_cast<size_t>(row) * (p.N / 2) + feature / 2 + lane % 4 * 2) = v;
  } else {
    if (p.operands.residual != nullptr) addTile(d, loadTile(p.operands.residual, p.N, p.M, feature, token));
    const uint32_t low = ptx::transposeMatrix(ptx::packBf16(d.x, d.y));
    const uint32_t high = ptx::transposeMatrix(ptx::packBf16(d.z, d.w));
    if (row >= p.M) return;
    uint16_t* to = p.out + static_cast<size_t>(row) * p.N + feature + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(to) = low;
    *reinterpret_cast<uint32_t*>(to + 8) = high;
  }
}

/// The multiplying warpgroups' part: sum, meet, scale, store.
template <class C>
__device__ __forceinline__ void multiplySlice(const GemmSmallParams& p, GemmSmallShared<C>& shared,
                                              const Fetcher<C>& fetcher, GroupRange range, const Place<C>& place,
                                              int myTiles) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, ranks = place.splits, rank = place.split;
  const int token = place.token, tileRow = place.row;
  const uint32_t met = ptx::smemAddress(&shared.met);
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = token + threadIdx.x < p.M ? __ldg(p.tokenScale + token + threadIdx.x) : 0.f;
  float acc[C::kParts][C::kPartTokens / 2];
  if constexpr (C::kFast)
    sumSliceFast<C>(shared, fetcher, range, acc);
  else
    sumSlice<C>(shared, fetcher, range, acc[0]);
  auto fragment = [&](int c) {  // the 16 × 8 tile of this warp at column c
    const float* d = acc[c / (C::kPartTokens / 8)] + c % (C::kPartTokens / 8) * 4;
    return make_float4(d[0], d[1], d[2], d[3]);
  };

  // Tile c · warps + w is 16 features of warp w × 8 tokens of column c; block t % ranks adds up tile t.
  constexpr int kWarps = C::kWarpgroups * 4;
  const int firstFeature = place.featureTile * C::kFeatures;
  if (ranks == 1) {
    ptx::syncNamed(1, kWarps * 32);
#pragma unroll
    for (int c = 0; c < C::kTokens / 8; c++)
      storeTile16x8<C::kEpilogue>(p, fragment(c),
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
                    fragment(c),
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
    storeTile16x8<C::kEpilogue>(p, sum, *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]),
                  firstFeature + tile % kWarps * 16, token + c * 8);
  }
}

template <class C>
__device__ __forceinline__ void gemmSmall(const GemmSmallParams& p) {
  extern __shared__ uint8_t raw[];
  auto& shared = *reinterpret_cast<GemmSmallShared<C>*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  const Place<C> place;
  const GroupRange range(p.K / kGroupSize, place.split, place.splits);

  ptx::launchDependents();
  const uint32_t met = ptx::smemAddress(&shared.met);
  const int myTiles = (C::kTiles - place.split + place.splits - 1) / place.splits;
  const Fetcher<C> fetcher(p, shared, place);
  const bool fetches = threadIdx.x == C::kWarpgroups * 128;
  const int ahead = min(range.last, range.first + C::kStages * C::kBatch);
  if (fetches) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kRows * C::kWarpgroups * 4);
    }
    ptx::barrierInit(met, 1);
    ptx::barrierInitFence();
    for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++)
      fetcher.fetchWeight(i, g, min(C::kBatch, range.last - g));
    if (place.splits > 1) ptx::barrierArriveExpect(met, myTiles * place.splits * 512);
  }
  __syncthreads();
  // Before a block writes to a neighbour, that one must have started and initialized its barriers.
  if (place.splits * C::kRows > 1) ptx::clusterArriveRelaxed();
  if (C::kRows > 1) ptx::clusterWait();
  ptx::waitForPrevious();
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<C::kFetchRegisters>();
    if (fetches) {
      for (int g = range.first, i = 0; g < ahead; g += C::kBatch, i++) fetcher.fetchX(i, g);
      fetcher.fetchRest(range);
    }
  } else {
    ptx::growRegisters<C::kMultiplyRegisters>();
    multiplySlice<C>(p, shared, fetcher, range, place, myTiles);
  }
}

}  // namespace fireq
