// INT4 weights × FP8 activations for 64 to 512 tokens: D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ in BF16.
//
// One block an SM, three or four multiplying warpgroups (see rescaled.cuh) and one that fetches. A cluster shares one tile
// and cuts K among its blocks. Each block finishes its share of the tile's tokens: the others send it their partial sums
// through the copy engine, as half floats with a power of two a row (11 bits, so they add nothing to the error of rounding
// to BF16), half the bytes of what shared memory between SMs carries slowly. The sums land in stages that the receiver has
// left, and are staged in weights that the sender's warpgroup has left: no block waits for another before all is summed.
#pragma once
#include <cuda.h>
#include <cstdint>
#include <type_traits>

#include "epilogue.cuh"
#include "gemm_small.cuh"
#include "half_sum.cuh"
#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "rescaled.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

/// What a block sends of a warp's part of the tile: its rows' factors, and 16 × 8 tiles of half floats.
constexpr int kFactorBytes = 64, kPieceBytes = 256;
constexpr int kMaxSplits = 6;
constexpr int kResidualBytes = 8 * kBlockRows * 2;  // of 8 tokens × a warpgroup's features

/// Where sums from other blocks and the residual lie in the stages of activations, which are left one after the other: bytes from the
/// first one on. Rarely do they reach into the last stage, which isn't left before all is summed.
struct MediumRooms {
  int room, residual, residualOfWarpgroup, end;
  /// columns: of 8 tokens; a block finishes `share` of them at most.
  __device__ constexpr MediumRooms(int share, int splits, int warpgroups)
      : room(share * kPieceBytes + kFactorBytes),
        residual(((splits - 1) * warpgroups * 4 * room + 127) / 128 * 128),
        residualOfWarpgroup(share * kResidualBytes),
        end(residual + warpgroups * residualOfWarpgroup) {}
};
__device__ constexpr bool roomsFit(int columns, int warpgroups, int bytes) {
  for (int splits = 1; splits <= kMaxSplits; splits++)
    if (MediumRooms((columns + splits - 1) / splits, splits, warpgroups).end > bytes) return false;
  return true;
}

template <int kPerSm_, int kWarpgroups_, int kTokens_, int kStages_, Epilogue kEpilogue_, Codes kCodes_, ScaleType kScale_>
struct GemmMediumConfig {
  static constexpr int kPerSm = kPerSm_;  // blocks that an SM holds
  static constexpr int kWarpgroups = kWarpgroups_;  // each multiplies 64 features
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr int kAhead = 3;  // stages of weights fetched before the kernel before has ended: more would delay activations
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;

  static constexpr bool kTakeTurns = false, kDecodeAhead = false;
  static constexpr int kBatch = 1;  // groups a stage
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;  // the last warpgroup fetches
  static constexpr int kColumns = kTokens / 8;              // a warp has that many 16 × 8 tiles of the result
  // Registers: what the launch gives each thread, and what the multiplying threads have once the fetching ones give back.
  static constexpr int kLaunchRegisters = 65536 / (kThreads * kPerSm) / 8 * 8;
  static constexpr int kFetchRegisters = 32;
  static constexpr int kGrown = (kLaunchRegisters * (kWarpgroups + 1) - kFetchRegisters) / kWarpgroups / 8 * 8;
  static constexpr int kMultiplyRegisters = kGrown < 232 ? kGrown : 232;
  // Sums are staged in a warpgroup's blocks of the first four stages; half of the tile's tokens go out through the next ones.
  static_assert(kStages >= 4 + kTokens / 64 && kFactorBytes + kColumns * kPieceBytes <= kBlockCodeBytes + 128);
  static_assert(roomsFit(kColumns, kWarpgroups, kStages * kXBytes));
};

template <class C>
struct GemmMediumShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][kBlockBytes<C::kScale>];
  alignas(16) float tokenScale[C::kTokens];
  int first[kMaxSplits + 1];  // columns of the tile that each block of the cluster finishes begin here
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t ready;  // the other blocks of the tile have room for this block's sums
  alignas(8) uint64_t met;    // all partial sums of this block's share are here
  alignas(8) uint64_t residual;  // so is the residual
};

template <class C>
constexpr KernelInfo kGemmMediumInfo{C::kFeatures, C::kTokens, 1, 0, 1, C::kThreads, sizeof(GemmMediumShared<C>) + 1024,
                                     C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// A warpgroup's residual, BF16, rows of tokens.
struct TileResidual {
  uint32_t base;
  __device__ __forceinline__ uint32_t address(int token, int chunk) const { return base + token * 128 + (chunk ^ (token % 8)) * 16; }
  /// Adds that of 16 tokens from `token` on to a warp's 16 features. All lanes take part.
  __device__ __forceinline__ void addTo(float4& v, float4& w, int token) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const uint4 pairs = ptx::loadMatricesTransposed(address(token + lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2));
    addPairs(v, pairs.x, pairs.y);
    addPairs(w, pairs.z, pairs.w);
  }
};

/// The fetching threads' last part: brings the residual of this block's share into stages that have been left, while the last groups
/// are multiplied. Loads in the epilogue would not be hidden by anything.
template <class C>
__device__ __forceinline__ void fetchResidual(const GemmSmallParams& p, GemmMediumShared<C>& shared, const GroupRange& range,
                                              const Place<C>& place) {
  const int first = shared.first[place.split], tokens = (shared.first[place.split + 1] - first) * 8;
  const MediumRooms rooms(shared.first[1], place.splits, C::kWarpgroups);
  const uint32_t x = ptx::smemAddress(shared.x), empty = ptx::smemAddress(shared.empty);
  ptx::waitForPrevious();
  if (place.splits > 1) ptx::clusterWait();  // long over; racecheck takes a warp that never waits for one that hasn't come
  for (int stage = rooms.residual / C::kXBytes; stage * C::kXBytes < rooms.end; stage++) {
    const int last = range.count() - C::kStages + stage;  // group in that stage
    if (last >= 0) ptx::barrierWait(empty + stage * 8, last / C::kStages % 2);
  }
  const int thread = threadIdx.x % 128, chunk = thread % 8, token = place.token + first * 8;
  const int rows = min(tokens, p.M - token);
#pragma unroll 1
  for (int w = 0; w < C::kWarpgroups; w++) {
    const int feature = place.featureTile * C::kFeatures + w * kBlockRows + chunk * 8;
    if (feature >= p.N) break;
    const TileResidual to{x + rooms.residual + w * rooms.residualOfWarpgroup};
#pragma unroll 2
    for (int row = thread / 8; row < rows; row += 16)
      ptx::copyAsync(to.address(row, chunk), p.operands.residual + static_cast<int64_t>(token + row) * p.N + feature);
  }
  ptx::copyAsyncArrive(ptx::smemAddress(&shared.residual));
}

/// A warpgroup's finished tokens on their way out, BF16, in the weight blocks that it has left: 32 tokens a block.
template <class C>
struct TileOutput {
  static constexpr bool kSilu = C::kEpilogue == Epilogue::kSiluMul;
  static constexpr int kRowBytes = kSilu ? 64 : 128, kChunks = kRowBytes / 16;
  static constexpr uint32_t kStride = C::kWarpgroups * kBlockBytes<C::kScale>;  // from a stage's block to the next stage's
  uint32_t base;
  __device__ __forceinline__ uint32_t address(int token, int chunk) const {
    const int swizzled = kSilu ? chunk ^ (token / 2 % 4) : chunk ^ (token % 8);
    return base + token / 32 * kStride + token % 32 * kRowBytes + swizzled * 16;
  }
  /// Puts a warp's 16 features of 16 tokens from `token` on. All lanes take part.
  __device__ __forceinline__ void put(int token, float4 v, float4 w) const {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    if constexpr (kSilu)
      ptx::storeMatricesTransposed(address(token + lane % 16, warp), ptx::packBf16(siluMul(v.x, v.z), siluMul(v.y, v.w)),
                                   ptx::packBf16(siluMul(w.x, w.z), siluMul(w.y, w.w)));
    else
      ptx::storeMatricesTransposed(address(token + lane / 16 * 8 + lane % 8, warp * 2 + lane / 8 % 2), ptx::packBf16(v.x, v.y),
                                   ptx::packBf16(v.z, v.w), ptx::packBf16(w.x, w.y), ptx::packBf16(w.z, w.w));
  }
  /// Writes `tokens` tokens. All threads of the warpgroup take part, each writing 16 bytes of a row at a time.
  __device__ __forceinline__ void write(const GemmSmallParams& p, int feature, int token, int tokens) const {
    const int thread = threadIdx.x % 128, chunk = thread % kChunks, columns = kSilu ? p.N / 2 : p.N;
    const int column = (kSilu ? feature / 2 : feature) + chunk * 8;
    if (column >= columns) return;
    uint16_t* out = p.out + static_cast<int64_t>(token) * columns + column;
    tokens = min(tokens, p.M - token);
    for (int row = thread / kChunks; row < tokens; row += 128 / kChunks)
      *reinterpret_cast<uint4*>(out + static_cast<int64_t>(row) * columns) = ptx::loadShared16(address(row, chunk));
  }
};

template <class C>
__device__ __forceinline__ void multiplyMedium(const GemmSmallParams& p, GemmMediumShared<C>& shared, const RingFrom<C::kStages>& start,
                                               const GroupRange& range, const Place<C>& place) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warpgroup = threadIdx.x / 128, splits = place.splits;
  const uint32_t ready = ptx::smemAddress(&shared.ready);
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = place.token + threadIdx.x < p.M ? __ldg(p.tokenScale + place.token + threadIdx.x) : 0.f;
  ptx::syncNamed(1, C::kWarpgroups * 128);

  auto announce = [&] {  // to the others: there is room for your sums
    ptx::clusterWait();  // all blocks have their barriers
    if (lane < splits && lane != place.split) ptx::barrierArriveCluster(ptx::clusterAddress(ready, lane));
  };
  RescaledSum<C> sum(shared, warpgroup);
  RingFrom<C::kStages> ring = start;
  const bool adds = C::kEpilogue == Epilogue::kLinear && p.operands.residual != nullptr;
  const Release<C> release(shared, range, adds);
  const int groups = range.count();
  if (groups == 1 && splits > 1) announce();
  sum.add(ring, groups, [&](int i, int stage) {
    release(range.first + i, stage);
    if (i == groups - 2 && splits > 1) announce();
  });

  const float2 scale = make_float2(sum.scale[0] * kCodeUnit, sum.scale[1] * kCodeUnit);
  const int tileFeature = place.featureTile * C::kFeatures, feature = tileFeature + warp * 16;
  const float2 bias = loadBias(p.operands.bias, feature, p.N);
  auto finish = [&](int c, float4 v) {
    const float2 t = *reinterpret_cast<const float2*>(&shared.tokenScale[c * 8 + lane % 4 * 2]);
    return make_float4(v.x * t.x + bias.x, v.y * t.y + bias.x, v.z * t.x + bias.y, v.w * t.y + bias.y);
  };
  const MediumRooms rooms(shared.first[1], splits, C::kWarpgroups);
  const TileResidual residual{ptx::smemAddress(shared.x) + rooms.residual + warpgroup * rooms.residualOfWarpgroup};
  auto put = [&](const TileOutput<C>& output, int c, float4 v, float4 w) {  // columns c and c + 1 of this block's share
    if (adds) residual.addTo(v, w, c * 8);
    output.put(c * 8, v, w);
  };
  auto block = [&](int stage) { return ptx::smemAddress(shared.weight[stage][warpgroup]); };
  ptx::syncNamed(2 + warpgroup, 128);  // the warpgroup has left its weights
  if (splits == 1) {
    const TileOutput<C> output{block(0)};
    if (adds) ptx::barrierWait(ptx::smemAddress(&shared.residual), 0);
    auto mine = [&](int c) {
      return finish(c, make_float4(sum.d[4 * c] * scale.x, sum.d[4 * c + 1] * scale.x, sum.d[4 * c + 2] * scale.y, sum.d[4 * c + 3] * scale.y));
    };
#pragma unroll
    for (int c = 0; c < C::kColumns; c += 2) put(output, c, mine(c), mine(c + 1));
    ptx::syncNamed(2 + warpgroup, 128);
    output.write(p, tileFeature + warpgroup * 64, place.token, C::kTokens);
    return;
  }

  float up[2], factor[2];
  halfFactors(sum.d, up, factor);
  factor[0] *= scale.x, factor[1] *= scale.y;
  const uint32_t staged = block(warp % 4), landed = ptx::smemAddress(shared.x), met = ptx::smemAddress(&shared.met);
#pragma unroll
  for (int c = 0; c < C::kColumns; c++)
    ptx::storeShared8(staged + kFactorBytes + c * kPieceBytes + lane * 8,
                      ptx::packHalf(sum.d[4 * c] * up[0], sum.d[4 * c + 1] * up[0]),
                      ptx::packHalf(sum.d[4 * c + 2] * up[1], sum.d[4 * c + 3] * up[1]));
  if (lane % 4 == 0) ptx::storeShared8(staged + lane / 4 * 8, __float_as_uint(factor[0]), __float_as_uint(factor[1]));
  ptx::fenceAsyncShared();
  __syncwarp();
  // Block `from` sends its warp w's part to the (from · warps + w)-th room of the others, not counting their own.
  const int room = rooms.room, first = shared.first[place.split], last = shared.first[place.split + 1];
  auto landing = [&](int from, int to) { return landed + ((from < to ? from : from - 1) * (C::kWarpgroups * 4) + warp) * room; };
  uint32_t factors = staged, pieces = staged + kFactorBytes + first * kPieceBytes;  // of this block's share, as sent by block `lane`
  if (lane < splits && lane != place.split) {
    factors = landing(lane, place.split), pieces = factors + kFactorBytes;
    const int begin = shared.first[lane], end = shared.first[lane + 1];
    const uint32_t to = ptx::clusterAddress(landing(place.split, lane), lane), there = ptx::clusterAddress(met, lane);
    ptx::barrierWait(ready, 0);
    ptx::copyToBlock(to, staged, kFactorBytes, there);
    ptx::copyToBlock(to + kFactorBytes, staged + kFactorBytes + begin * kPieceBytes, (end - begin) * kPieceBytes, there);
  }
  __syncwarp();
  ptx::barrierWait(met, 0);
  if (adds) ptx::barrierWait(ptx::smemAddress(&shared.residual), 0);
  // What this block sent has been read when all have what they were sent: only then may it end.
  ptx::clusterArriveRelaxed();
  const TileOutput<C> output{block(4)};
  auto meet = [&](auto count) {
    constexpr int kSplits = decltype(count)::value, kShare = (C::kColumns + kSplits - 1) / kSplits;
    float2 f[kSplits];
    uint32_t at[kSplits];
#pragma unroll
    for (int from = 0; from < kSplits; from++) {
      f[from] = ptx::loadSharedFloat2(__shfl_sync(~0u, factors, from) + lane / 4 * 8);
      at[from] = __shfl_sync(~0u, pieces, from) + lane * 8;
    }
    auto column = [&](int i) {
      i = min(i, last - first - 1);
      float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll
      for (int from = 0; from < kSplits; from++) {
        const uint2 h = ptx::loadShared8(at[from] + i * kPieceBytes);
        const float2 a = ptx::unpackHalf(h.x), b = ptx::unpackHalf(h.y);
        v.x += a.x * f[from].x, v.y += a.y * f[from].x, v.z += b.x * f[from].y, v.w += b.y * f[from].y;
      }
      return finish(first + i, v);
    };
#pragma unroll
    for (int i = 0; i < kShare; i += 2) put(output, i, column(i), column(i + 1));
  };
  switch (splits) {
    case 2: meet(std::integral_constant<int, 2>{}); break;
    case 3: meet(std::integral_constant<int, 3>{}); break;
    case 4: meet(std::integral_constant<int, 4>{}); break;
    case 5: meet(std::integral_constant<int, 5>{}); break;
    default: meet(std::integral_constant<int, kMaxSplits>{}); break;
  }
  ptx::syncNamed(2 + warpgroup, 128);
  output.write(p, tileFeature + warpgroup * 64, place.token + first * 8, (last - first) * 8);
  ptx::clusterWait();
}

template <class C>
__device__ __forceinline__ void gemmMedium(const GemmSmallParams& p) {
  auto& shared = ptx::sharedMemory<GemmMediumShared<C>>();
  const Place<C> place;
  const GroupRange range(p.K / kGroupSize, place.split, place.splits);
  // The last group is in the last stage. All but that one have been left when the last group is multiplied: room for sums.
  const RingFrom<C::kStages> ring{(C::kStages - range.count() % C::kStages) % C::kStages};
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    ptx::prefetchTensorMap(&p.x);
    beginRing(shared.full, shared.empty, C::kWarpgroups * 128);
    ptx::barrierInit(ptx::smemAddress(&shared.ready), max(1, (place.splits - 1) * C::kWarpgroups * 4));
    ptx::barrierInit(ptx::smemAddress(&shared.met), 1);
    ptx::barrierInit(ptx::smemAddress(&shared.residual), 128);
    ptx::barrierInitFence();
  }
  if (threadIdx.x <= place.splits) shared.first[threadIdx.x] = (C::kColumns * threadIdx.x + place.splits - 1) / place.splits;
  __syncthreads();
  // Before a block writes to a neighbour, that one must have started and initialized its barriers.
  if (place.splits > 1) ptx::clusterArriveRelaxed();
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<C::kFetchRegisters>();
    if (threadIdx.x == C::kWarpgroups * 128 && place.splits > 1)
      ptx::barrierArriveExpect(ptx::smemAddress(&shared.met),
                               (place.splits - 1) * C::kWarpgroups * 4 *
                                   (kFactorBytes + (shared.first[place.split + 1] - shared.first[place.split]) * kPieceBytes));
    Fetcher<C>(p, shared, place).run(ring, range);
    if (C::kEpilogue == Epilogue::kLinear && p.operands.residual != nullptr) {
      __syncwarp();  // by then the warp's fetching thread has seen every stage left but for the last time
      fetchResidual<C>(p, shared, range, place);
    }
  } else {
    ptx::growRegisters<C::kMultiplyRegisters>();
    ptx::waitForPrevious();
    multiplyMedium<C>(p, shared, ring, range, place);
  }
}

}  // namespace fireq
