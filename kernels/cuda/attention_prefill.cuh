// Attention of many new tokens a sequence over a paged cache that already holds them: out = softmax(q·K)·V, causal, grouped
// queries, q in E4M3 with a scale a token and head. Both products are FP8 wgmma, on tiles that attention_prefill_tiles.cuh has made.
//
// A block takes 128 queries of a head: two warpgroups of 64, and a third one that fetches tiles of 128 keys and values. Under a tile's
// softmax run the product of queries with the next tile's keys and that of the last tile's probabilities with its values, so that a
// warpgroup never waits for the tensor cores.
//
// * Queries stay in registers, in the order of channels in which keys are decoded; probabilities go from the accumulator of q·K to the
//   operand of the second product without leaving their lane.
// * The softmax is attention_prefill_softmax.cuh's: with its p, m and σ, O = Σ E4M3(p·σ[value])·code / Σ p.
#pragma once
#include <cstdint>

#include "attention_prefill_softmax.cuh"
#include "attention_prefill_tiles.cuh"
#include "kv_layout.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"
#include "wgmma_half.cuh"

namespace fireq {

struct AttentionPrefillParams {
  const uint8_t* q;        // E4M3 [tokens, queryHeads, headDim]
  const float* qScale;     // [tokens, queryHeads]
  const uint8_t* decoded;  // [tiles, keyHeads] DecodedTile: each sequence's tiles follow each other
  // Of each head, up to 128 new tokens of a sequence, those that see most first: the sequence's first tile, the first query's row in q
  // as [tokens · queryHeads, headDim], queries, and how many tokens of the sequence the first one sees (the next one sees one more, …).
  // A piece ends where a tile does, if not before: so the last tile alone has tokens that some of its queries don't see.
  const int4* work;
  uint16_t* out;           // BF16 [tokens, queryHeads, headDim]
  int workCount, queryHeads, keyHeads;
  float softmaxScale;
};

enum class Overlap {
  kNone,    // a warpgroup's products and softmax follow each other
  kValues,  // the product with values runs under the softmax
  kBoth,    // and so does the next product with keys
};

template <int kHeadDim_, int kStages_, Overlap kOverlap_>
struct AttentionPrefillConfig {
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kStages = kStages_;
  static constexpr Overlap kOverlap = kOverlap_;
  static constexpr int kWarpgroups = 2, kRows = 64;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
};

namespace prefill {

/// A block's work: back and forth through the grid, so that all blocks get as much.
struct Walk {
  const AttentionPrefillParams& p;
  int step = 0;
  int4 work;

  __device__ __forceinline__ explicit Walk(const AttentionPrefillParams& params) : p(params), work(load(0)) {}
  __device__ __forceinline__ int index(int at) const { return at * gridDim.x + (at % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }
  __device__ __forceinline__ bool exists(int at) const { return index(at) < p.workCount; }
  __device__ __forceinline__ bool done() const { return !exists(step); }
  __device__ __forceinline__ int4 load(int at) const { return exists(at) ? __ldg(p.work + index(at)) : int4{}; }
  __device__ __forceinline__ void next() {
    work = load(++step);
  }
  __device__ __forceinline__ int keyTiles() const { return (work.w + work.z - 1 + kKeys - 1) / kKeys; }  // that the last query sees
};

template <class C>
struct Shared {
  alignas(1024) uint8_t keys[C::kStages][kKeys * kHeadDim];
  alignas(1024) uint8_t values[C::kStages][C::kHeadDim * kKeys];
  TileScales scales[2][C::kStages];  // by parity too: a tile of keys is released before its softmax is done
  alignas(128) uint8_t rows[C::kWarpgroups * 4][16][C::kHeadDim * 2 + 16];  // results of a warp, spread over the banks
  alignas(8) uint64_t keysFull[C::kStages], keysEmpty[C::kStages], valuesFull[C::kStages], valuesEmpty[C::kStages];
};

/// One thread's part of fetching: keys with their scales, or values.
template <class C, bool kValues>
__device__ __forceinline__ void fetchTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const uint32_t full = ptx::smemAddress(kValues ? shared.valuesFull : shared.keysFull);
  const uint32_t empty = ptx::smemAddress(kValues ? shared.valuesEmpty : shared.keysEmpty);
  constexpr uint32_t kTileBytes = kValues ? C::kHeadDim * kKeys : kKeys * kKeyRow, kScaleBytes = sizeof(TileScales);
  Ring<C::kStages> ring;
  for (Walk walk(p); !walk.done(); walk.next()) {
    const int keyHead = walk.work.y % p.queryHeads / (p.queryHeads / p.keyHeads);
    const auto* const tiles = reinterpret_cast<const DecodedTile<C::kHeadDim>*>(p.decoded) + static_cast<size_t>(walk.work.x) * p.keyHeads + keyHead;
#pragma unroll 1
    for (int tile = 0; tile < walk.keyTiles(); tile++, ring.advance()) {
      const DecodedTile<C::kHeadDim>& from = tiles[static_cast<size_t>(tile) * p.keyHeads];
      const uint32_t barrier = full + ring.stage * 8;
      ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      ptx::barrierArriveExpect(barrier, kValues ? kTileBytes : kTileBytes + kScaleBytes);
      ptx::copyBulk(ptx::smemAddress(kValues ? shared.values[ring.stage] : shared.keys[ring.stage]), kValues ? from.values : from.keys, kTileBytes, barrier);
      if (!kValues) ptx::copyBulk(ptx::smemAddress(&shared.scales[ring.parity][ring.stage]), &from.scales, kScaleBytes, barrier);
    }
  }
}

}  // namespace prefill

template <class C>
constexpr int kAttentionPrefillSharedBytes = sizeof(prefill::Shared<C>) + 1024;  // the kernel aligns its base

namespace prefill {

/// A lane's channels (a quarter) of its two rows of queries, on their way.
template <int kHeadDim>
struct FetchedQueries {
  static constexpr int kSteps = kHeadDim / 32;
  // Channels 8 (4s + h) … + 7, and 16 more, by h. Heads of 128: s is lane % 4; of 64, where a lane has one h: s is lane % 2.
  uint2 low[2][kSteps / 2], high[2][kSteps / 2];
  float scale[2];

  __device__ __forceinline__ void fetch(const AttentionPrefillParams& p, const int4& work, int row) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const size_t at = work.y + static_cast<size_t>(min(row + 8 * r, work.z - 1)) * p.queryHeads;
      const uint8_t* const from = p.q + at * kHeadDim;
      const int lane = threadIdx.x % 4;
      if constexpr (kHeadDim == 128) {
        const uint4* const both = reinterpret_cast<const uint4*>(from) + lane * 2;
        const uint4 a = __ldg(both), b = __ldg(both + 1);
        low[r][0] = {a.x, a.y}, low[r][1] = {a.z, a.w}, high[r][0] = {b.x, b.y}, high[r][1] = {b.z, b.w};
      } else {
        const uint2* const mine = reinterpret_cast<const uint2*>(from) + lane % 2 * 4 + lane / 2;
        low[r][0] = __ldg(mine), high[r][0] = __ldg(mine + 2);
      }
      scale[r] = __ldg(p.qScale + at);
    }
  }
  /// Into the L2: of each row its thread's part.
  static __device__ __forceinline__ void prefetch(const AttentionPrefillParams& p, const int4& work) {
    const int row = threadIdx.x % 256 / 2;
    if (row < work.z)
      ptx::prefetchL2(p.q + (work.y + static_cast<size_t>(row) * p.queryHeads) * kHeadDim + threadIdx.x % 2 * (kHeadDim / 2));
  }
  /// → A operands of steps of 32 channels, in the order of decoded keys.
  __device__ __forceinline__ void arrange(uint32_t (&q)[kSteps][4]) const {
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int step = 0; step < kSteps; step++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
          // Heads of 128: l is the step, half is h; of 64: l = 2 · step + half.
          const int l = kHeadDim == 128 ? step : 2 * step + half, at = kHeadDim == 128 ? half : 0;
          const uint2 a = low[r][at], b = high[r][at];
          q[step][2 * half + r] = ptx::permute(l / 2 ? a.y : a.x, l / 2 ? b.y : b.x, l % 2 ? 0x7362 : 0x5140);
        }
  }
};

/// BF16 rows from a warp's accumulators, 16 rows, by way of `staged`. to: the first row; others follow in `stride` elements; `rows` of
/// them exist.
template <int kHeadDim>
__device__ __forceinline__ void storeRows(const float (&o)[kHeadDim / 2], const float (&factor)[2], uint32_t staged, uint16_t* to, size_t stride, int rows) {
  constexpr uint32_t kPitch = kHeadDim * 2 + 16;
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; k++) {
    uint32_t w[4];  // rows, rows + 8; the next 8 channels
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = ptx::packBf16(o[8 * k + 2 * i] * factor[i % 2], o[8 * k + 2 * i + 1] * factor[i % 2]);
    ptx::storeMatrices(staged + lane % 16 * kPitch + k * 32 + lane / 16 * 16, w[0], w[1], w[2], w[3]);
  }
  __syncwarp();
  constexpr int kLanes = kHeadDim / 8, kAtOnce = 32 / kLanes;  // of a row; rows
  const int first = lane / kLanes, part = lane % kLanes;
  to += first * stride + part * 8;
  const uint32_t from = staged + first * kPitch + part * 16;
#pragma unroll
  for (int k = 0; k < 16; k += kAtOnce, to += kAtOnce * stride) {
    const uint4 v = ptx::loadShared16(from + k * kPitch);
    if (k + first < rows) *reinterpret_cast<uint4*>(to) = v;
  }
}

/// A warpgroup that multiplies.
template <class C>
__device__ __forceinline__ void attendTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
  // Read again where an item begins or ends: in the loop there are no registers to spare.
  const auto rowOfWarp = [] { return ptx::threadNumber() / 32 * 16; };
  const auto rowOfLane = [] { return ptx::threadNumber() / 32 * 16 + ptx::threadNumber() % 32 / 4; };
  const uint32_t keysFull = ptx::smemAddress(shared.keysFull), keysEmpty = ptx::smemAddress(shared.keysEmpty);
  const uint32_t valuesFull = ptx::smemAddress(shared.valuesFull), valuesEmpty = ptx::smemAddress(shared.valuesEmpty);
  const uint32_t keys = wgmma::descriptorLow(ptx::smemAddress(shared.keys)), values = wgmma::descriptorLow(ptx::smemAddress(shared.values));
  constexpr int kHeadDim = C::kHeadDim, kSteps = kHeadDim / 32, kOutputs = kHeadDim / 2;
  constexpr uint32_t kKeyTile = kKeys * kKeyRow / 16, kValueTile = kHeadDim * kKeys / 16;
  Ring<C::kStages> keyRing, valueRing;
  Softmax softmax;
  softmax.ones = ptx::unseen(0x3c003c00u, 0);  // or else ptxas puts it into each instruction, which has room for one
  uint32_t q[kSteps][4];
  // Of tiles in turns: scores, and probabilities.
  uint32_t a[kScores], b[kScores], pa[4][4], pb[4][4];
  float o[kOutputs];
  FetchedQueries<kHeadDim> fetched;

  // All that the products take is in its registers before the first one begins.
  const auto begin = [&](uint32_t (&s)[kScores], uint32_t (&probabilities)[4][4]) {
    ptx::anew(s);
    wgmma::pin(o);
#pragma unroll
    for (int step = 0; step < kSteps; step++) wgmma::pin(q[step]);
#pragma unroll
    for (int step = 0; step < 4; step++) wgmma::pin(probabilities[step]);
    wgmma::fence();
  };
  const auto waitForKeys = [&] { ptx::barrierWait(keysFull + keyRing.stage * 8, keyRing.parity); };
  const auto waitForValues = [&] { ptx::barrierWait(valuesFull + valueRing.stage * 8, valueRing.parity); };
  const auto multiplyKeys = [&](uint32_t (&s)[kScores]) {
#pragma unroll
    for (int step = 0; step < kSteps; step++) wgmma::e4m3ToHalves(s, q[step], wgmma::descriptor(keys + keyRing.stage * kKeyTile + 2 * step), step > 0);
    wgmma::commit();
  };
  const auto multiplyValues = [&](uint32_t (&probabilities)[4][4], int accumulate) {
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<kHeadDim>::e4m3(o, probabilities[step], wgmma::descriptor(values + valueRing.stage * kValueTile + 2 * step), step > 0 || accumulate);
    wgmma::commit();
  };
  const auto leaveKeys = [&] {  // their scales are looked at later
    softmax.expectTile(ptx::smemAddress(&shared.scales[keyRing.parity][keyRing.stage]));
    __syncwarp();
    if (lane == 0) ptx::barrierArrive(keysEmpty + keyRing.stage * 8);
    keyRing.advance();
  };
  const auto leaveValues = [&] {
    if (lane == 0) ptx::barrierArrive(valuesEmpty + valueRing.stage * 8);
    valueRing.advance();
  };
  /// What s must not see of the tile whose first token is `position`: the last one.
  const auto hide = [&](uint32_t (&s)[kScores], int position, int visible) { mask(s, visible + rowOfLane() - position - lane % 4 * 2); };
  /// s, the tile's scores, become probabilities, while `next` become the next tile's scores and the last tile's probabilities meet its values.
  const auto turn = [&](int tile, uint32_t (&s)[kScores], uint32_t (&next)[kScores], uint32_t (&last)[4][4], uint32_t (&probabilities)[4][4]) {
    waitForKeys();
    waitForValues();
    begin(next, last);
    multiplyKeys(next);
    multiplyValues(last, tile > 1);
    if constexpr (C::kOverlap != Overlap::kBoth) wgmma::wait<C::kOverlap == Overlap::kNone ? 0 : 1>();
    softmax.takeTile();
    softmax.go(s, probabilities, o, next, true);
    wgmma::wait<0>();
    wgmma::pin(next), wgmma::pin(o);
    leaveKeys(), leaveValues();
  };

  const uint32_t nothing = p.workCount < 0;
  Walk walk(p);
  if (walk.done()) return;
  fetched.fetch(p, walk.work, rowOfLane());
  fetched.arrange(q);
  waitForKeys();
  begin(a, pa);
  multiplyKeys(a);
  wgmma::wait<0>();
  wgmma::pin(a);
  for (;;) {  // a: scores of the first tile
    const int4 work = walk.work;
    const int tiles = walk.keyTiles();
    const bool more = walk.exists(walk.step + 1);
    if (more) FetchedQueries<kHeadDim>::prefetch(p, walk.load(walk.step + 1));
    softmax.start(fetched.scale, p.softmaxScale);
    leaveKeys();
    softmax.takeTile();
    if (tiles > 1) waitForKeys();
    begin(b, pa);
    multiplyKeys(b);  // of nothing if there is one tile
    if (tiles == 1) hide(a, 0, work.w);
    softmax.begin(a, pa);
    wgmma::wait<0>();
    wgmma::pin(b);
    if (tiles > 1) leaveKeys();
#pragma unroll 1
    for (int tile = 1; tile < tiles - 1; tile++) {
      turn(tile, b, a, pa, pb);
      if (++tile == tiles - 1) {
#pragma unroll
        for (int j = 0; j < kScores; j++) b[j] = ptx::unseen(a[j], nothing);
#pragma unroll
        for (int j = 0; j < 16; j++) pa[j / 4][j % 4] = ptx::unseen(pb[j / 4][j % 4], nothing);
        break;
      }
      turn(tile, a, b, pb, pa);
    }
    // The next queries come while the last tile ends.
    if (more) fetched.fetch(p, walk.load(walk.step + 1), rowOfLane());
    if (tiles > 1) {
      waitForValues();
      begin(a, pa);
      multiplyValues(pa, tiles > 2);
      softmax.takeTile();
      hide(b, (tiles - 1) * kKeys, work.w);
      softmax.go(b, pb, o, b, tiles * kKeys - kKeys / 2 < work.w + min(work.z, (group + 1) * C::kRows) - 1);
      wgmma::wait<0>();
      wgmma::pin(o);
      leaveValues();
    } else {
#pragma unroll
      for (int j = 0; j < 16; j++) pb[j / 4][j % 4] = ptx::unseen(pa[j / 4][j % 4], nothing);
    }
    waitForValues();
    if (more) waitForKeys();
    fetched.arrange(q);
    begin(a, pb);
    multiplyValues(pb, tiles > 1);
    multiplyKeys(a);  // of the next queries, or of nothing
    wgmma::wait<1>();
    wgmma::pin(o);
    leaveValues();
    float factor[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float total = sumOverQuad(softmax.total[h]);
      factor[h] = total == 0.f ? 0.f : __fdividef(1 / kUnit, total);
    }
    const size_t stride = static_cast<size_t>(p.queryHeads) * kHeadDim;
    const int warpRow = rowOfWarp();
    storeRows<kHeadDim>(o, factor, ptx::smemAddress(shared.rows[warpRow / 16]), p.out + static_cast<size_t>(work.y) * kHeadDim + warpRow * stride, stride, work.z - warpRow);
    wgmma::wait<0>();
    wgmma::pin(a);
    if (!more) break;
    walk.next();
  }
}

}  // namespace prefill

/// grid: one block an SM; C::kThreads threads.
template <class C>
__device__ __forceinline__ void attentionPrefill(const AttentionPrefillParams& p) {
  using namespace prefill;
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<C>*>((reinterpret_cast<uintptr_t>(memory) + 1023) & ~uintptr_t{1023});
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    const auto init = [](uint64_t* barriers, int count, int arrivals) {
      for (int i = 0; i < count; i++) ptx::barrierInit(ptx::smemAddress(barriers + i), arrivals);
    };
    init(shared.keysFull, C::kStages, 1), init(shared.keysEmpty, C::kStages, C::kWarpgroups * 4);
    init(shared.valuesFull, C::kStages, 1), init(shared.valuesEmpty, C::kStages, C::kWarpgroups * 4);
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::waitForPrevious();
  // The three warpgroups share the 3 · 168 registers a thread of the launch.
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<24>();
    // A copy costs its thread some 150 cycles: keys and values have one each.
    const int thread = threadIdx.x - C::kWarpgroups * 128;
    if (thread == 0) fetchTiles<C, false>(p, shared);
    if (thread == 32) fetchTiles<C, true>(p, shared);
  } else {
    ptx::growRegisters<240>();
    attendTiles<C>(p, shared);
  }
}

}  // namespace fireq
