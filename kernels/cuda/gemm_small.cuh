// INT4 weights × FP8 activations for few tokens (M ≤ 32, up to 64 where tiles of 256 features fill the SMs), in BF16:
// D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ.
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
#include "ring.cuh"
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

template <int kPerSm_, int kWarpgroups_, int kTokens_, int kBatch_, int kStages_,
          Epilogue kEpilogue_, Codes kCodes_, ScaleType kScale_>
struct GemmSmallConfig {
  static constexpr int kPerSm = kPerSm_;  // blocks that an SM holds
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kBatch = kBatch_;  // groups a stage; their multiplications are independent and fly together
  static constexpr int kStages = kStages_;
  static constexpr int kAhead = kStages_;  // stages of weights fetched before the kernel before has ended
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;  // a group
  static constexpr int kThreads = (kWarpgroups + 1) * 128;  // the last warpgroup fetches
  static constexpr int kTiles = kWarpgroups * 4 * (kTokens / 8);  // 16 × 8 tiles of the result, one warp each
  static constexpr int kPartialBytes = (kTiles + 8) * 512;        // their partial sums from all blocks
  // Registers: what the launch gives each thread, and what the multiplying threads have once the fetching ones give back.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kPerSm) / 8 * 8;
  static constexpr int kFetchRegisters = 32;
  static constexpr int kGrown = (kLaunchRegisters * (kWarpgroups + 1) - kFetchRegisters) / kWarpgroups / 8 * 8;
  static constexpr int kMultiplyRegisters = kGrown < 232 ? kGrown : 232;
};

template <class C>
struct GemmSmallShared {
  alignas(1024) uint8_t x[C::kStages][C::kBatch][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][C::kBatch][kBlockBytes<C::kScale>];
  alignas(128) uint8_t partial[C::kPartialBytes];  // float4 [tile of mine · splits + source][lane]
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t met;  // all partial sums of this block's tiles are here
};

template <class C>
constexpr KernelInfo kGemmSmallInfo{C::kFeatures, C::kTokens, C::kBatch, 0, 1, C::kThreads, sizeof(GemmSmallShared<C>) + 1024,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// The groups of K that one block of a cluster adds up.
struct GroupRange {
  int first, last;
  __device__ __forceinline__ GroupRange(int groups, int rank, int ranks)
      : first(groups * rank / ranks), last(groups * (rank + 1) / ranks) {}
  __device__ __forceinline__ int count() const { return last - first; }
};

/// Which features, tokens and part of K a block takes.
template <class C>
struct Place {
  int splits, split, featureTile, token;
  __device__ __forceinline__ Place() {
    splits = ptx::clusterSize(), split = ptx::clusterRank();
    featureTile = blockIdx.x / splits, token = blockIdx.y * C::kTokens;
  }
};

/// One thread's part of fetching groups into the ring: part 0 the activations, the others a share of the weights. A copy of
/// the engine costs its thread some 150 cycles, so one thread for all would fetch a stage slower than it is multiplied.
template <class C>
struct Fetcher {
  static constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  const GemmSmallParams& p;
  const Place<C>& place;
  uint32_t full, empty, x, weight;
  int validBlocks;

  template <class Shared>
  __device__ __forceinline__ Fetcher(const GemmSmallParams& p, Shared& shared, const Place<C>& place)
      : p(p),
        place(place),
        full(ptx::smemAddress(shared.full)),
        empty(ptx::smemAddress(shared.empty)),
        x(ptx::smemAddress(shared.x)),
        weight(ptx::smemAddress(shared.weight)),
        validBlocks(max(0, min(C::kWarpgroups, (p.N + kBlockRows - 1) / kBlockRows - place.featureTile * C::kWarpgroups))) {}

  /// Weights don't depend on the kernel before, so their first stages may be fetched while it still runs.
  __device__ __forceinline__ void fetchWeights(RingFrom<C::kStages> ring, const GroupRange& range, int part) const {
    const int groups = p.K / kGroupSize;
    const uint8_t* from = p.weight + (static_cast<size_t>(place.featureTile * C::kWarpgroups + part - 1) * groups + range.first) * kBlock;
    for (int g = range.first; g < range.last; g += C::kBatch, ring.advance(), from += C::kBatch * kBlock) {
      if (g >= range.first + C::kStages * C::kBatch) ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      if (g == range.first + C::kAhead * C::kBatch) ptx::waitForPrevious();  // activations first
#pragma unroll
      for (int b = 0; b < C::kWarpgroups; b += kFetchParts - 1)
        if (b + part - 1 < validBlocks)
          ptx::copyBulk(weight + (ring.stage * C::kWarpgroups + b + part - 1) * C::kBatch * kBlock,
                        from + static_cast<size_t>(b) * groups * kBlock, min(C::kBatch, range.last - g) * kBlock, full + ring.stage * 8);
    }
  }
  __device__ __forceinline__ void fetchActivations(RingFrom<C::kStages> ring, const GroupRange& range) const {
    for (int g = range.first; g < range.last; g += C::kBatch, ring.advance()) {
      const uint32_t barrier = full + ring.stage * 8;
      if (g >= range.first + C::kStages * C::kBatch) ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      ptx::barrierArriveExpect(barrier, C::kBatch * C::kXBytes + validBlocks * min(C::kBatch, range.last - g) * kBlock);
      ptx::copyTile3(x + ring.stage * C::kBatch * C::kXBytes, &p.x, 0, place.token, g, barrier);
    }
  }
  /// The fetching warpgroup's part of the kernel.
  __device__ __forceinline__ void run(const RingFrom<C::kStages>& ring, const GroupRange& range) const {
    const int part = threadIdx.x / 32 % kFetchParts;
    if (threadIdx.x % 32 != 0) return;
    if (part > 0) return fetchWeights(ring, range, part);
    ptx::waitForPrevious();
    fetchActivations(ring, range);
  }
};

/// Tells that this lane has left a stage, if it will be filled again. all: in any case.
template <class C>
struct Release {
  uint32_t empty;
  int last;  // groups from which on no stage is refilled
  template <class Shared>
  __device__ __forceinline__ Release(Shared& shared, const GroupRange& range, bool all = false)
      : empty(ptx::smemAddress(shared.empty)), last(all ? range.last : range.last - C::kStages * C::kBatch) {}
  __device__ __forceinline__ void operator()(int g, int stage) const {
    __syncwarp();  // so that lanes come together
    if (g < last) ptx::barrierArrive(empty + stage * 8);
  }
};

/// acc[…] = this warpgroup's 64 × kTokens sum over the range, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumSlice(GemmSmallShared<C>& shared, const Release<C>& release, GroupRange range,
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
    release(g, stage);
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

/// Finishes and writes a warp's 16 features, 8 tokens at a time.
template <Epilogue kEpilogue>
struct TileWriter {
  static constexpr bool kSilu = kEpilogue == Epilogue::kSiluMul;
  uint16_t* out;  // of this lane in the first tile
  const uint16_t* residual;
  int64_t step;  // elements from a tile to the next one
  int rows;      // tokens from this lane's in the first tile to the end
  float2 bias;

  /// feature, token: of the first tile's first element.
  __device__ __forceinline__ TileWriter(const GemmSmallParams& p, int feature, int token) {
    const int lane = threadIdx.x % 32, row = token + lane / 4, columns = kSilu ? p.N / 2 : p.N;
    const int64_t at = static_cast<int64_t>(row) * columns + (kSilu ? feature / 2 : feature) + lane % 4 * 2;
    out = p.out + at;
    residual = kSilu || p.operands.residual == nullptr ? nullptr : p.operands.residual + at;
    step = 8 * static_cast<int64_t>(columns);
    rows = feature < p.N ? p.M - row : 0;  // N is a multiple of 16
    bias = loadBias(p.operands.bias, feature, p.N);
  }
  /// The residual of tile `tile`, to be loaded long before it is added.
  __device__ __forceinline__ uint2 load(int tile) const {
    if (residual == nullptr || tile * 8 >= rows) return make_uint2(0, 0);
    return make_uint2(*reinterpret_cast<const uint32_t*>(residual + tile * step), *reinterpret_cast<const uint32_t*>(residual + tile * step + 8));
  }
  /// d: the sums of tile `tile`; scale: of this lane's two tokens; old: the tile's residual.
  __device__ __forceinline__ void write(int tile, float4 d, float2 scale, uint2 old) const {
    const bool valid = tile * 8 < rows;
    d = make_float4(d.x * scale.x + bias.x, d.y * scale.y + bias.x, d.z * scale.x + bias.y, d.w * scale.y + bias.y);
    if constexpr (kSilu) {
      const uint32_t v = ptx::transposeMatrix(ptx::packBf16(siluMul(d.x, d.z), siluMul(d.y, d.w)));
      if (valid) *reinterpret_cast<uint32_t*>(out + tile * step) = v;
    } else {
      if (residual != nullptr) addTile(d, old);
      const uint32_t low = ptx::transposeMatrix(ptx::packBf16(d.x, d.y)), high = ptx::transposeMatrix(ptx::packBf16(d.z, d.w));
      if (valid) {
        *reinterpret_cast<uint32_t*>(out + tile * step) = low;
        *reinterpret_cast<uint32_t*>(out + tile * step + 8) = high;
      }
    }
  }
};

/// The multiplying warpgroups' part: sum, meet, scale, store.
template <class C>
__device__ __forceinline__ void multiplySlice(const GemmSmallParams& p, GemmSmallShared<C>& shared,
                                              GroupRange range, const Place<C>& place, int myTiles) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, ranks = place.splits, rank = place.split;
  const int token = place.token;
  const uint32_t met = ptx::smemAddress(&shared.met);
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = token + threadIdx.x < p.M ? __ldg(p.tokenScale + token + threadIdx.x) : 0.f;
  float acc[C::kTokens / 2];
  sumSlice<C>(shared, Release<C>(shared, range), range, acc);
  auto fragment = [&](int c) {  // the 16 × 8 tile of this warp at column c
    return make_float4(acc[4 * c], acc[4 * c + 1], acc[4 * c + 2], acc[4 * c + 3]);
  };

  // Tile c · warps + w is 16 features of warp w × 8 tokens of column c; block t % ranks adds up tile t.
  constexpr int kWarps = C::kWarpgroups * 4;
  const int firstFeature = place.featureTile * C::kFeatures;
  if (ranks == 1) {
    const TileWriter<C::kEpilogue> writer(p, firstFeature + warp * 16, token);
    uint2 old[C::kTokens / 8];
#pragma unroll
    for (int c = 0; c < C::kTokens / 8; c++) old[c] = writer.load(c);
    ptx::syncNamed(1, kWarps * 32);
#pragma unroll
    for (int c = 0; c < C::kTokens / 8; c++)
      writer.write(c, fragment(c), *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]), old[c]);
    return;
  }
  // This warp finishes tiles i = warp, warp + kWarps, … of this block's.
  constexpr int kMine = (C::kTiles / 2 + kWarps - 1) / kWarps;
  auto writerOf = [&](int i) {
    const int tile = i * ranks + rank;
    return TileWriter<C::kEpilogue>(p, firstFeature + tile % kWarps * 16, token + tile / kWarps * 8);
  };
  uint2 old[kMine];
#pragma unroll
  for (int n = 0; n < kMine; n++)
    if (warp + n * kWarps < myTiles) old[n] = writerOf(warp + n * kWarps).load(0);
  ptx::clusterWait();
  const auto* partials = reinterpret_cast<const float4*>(shared.partial);
  const uint32_t partial = ptx::smemAddress(partials);
#pragma unroll
  for (int c = 0; c < C::kTokens / 8; c++) {
    const int tile = c * kWarps + warp, owner = tile % ranks;
    const uint32_t slot = (tile / ranks * ranks + rank) * 512 + lane * 16;
    ptx::storeAsync(ptx::clusterAddress(partial + slot, owner), fragment(c), ptx::clusterAddress(met, owner));
  }
  ptx::syncNamed(1, kWarps * 32);  // the token scales
  ptx::barrierWait(met, 0);
#pragma unroll
  for (int n = 0; n < kMine; n++) {
    const int i = warp + n * kWarps;
    if (i >= myTiles) break;
    float4 sum = partials[i * ranks * 32 + lane];
    for (int source = 1; source < ranks; source++) {
      const float4 v = partials[(i * ranks + source) * 32 + lane];
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    const int c = (i * ranks + rank) / kWarps;
    writerOf(i).write(0, sum, *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]), old[n]);
  }
}

template <class C>
__device__ __forceinline__ void gemmSmall(const GemmSmallParams& p) {
  auto& shared = ptx::sharedMemory<GemmSmallShared<C>>();
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
    Fetcher<C>(p, shared, place).run({0}, range);
  } else {
    ptx::growRegisters<C::kMultiplyRegisters>();
    ptx::waitForPrevious();
    multiplySlice<C>(p, shared, range, place, myTiles);
  }
}

}  // namespace fireq
