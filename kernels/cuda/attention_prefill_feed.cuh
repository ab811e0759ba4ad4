// Attention of many new tokens a sequence (attention_prefill.cuh): its third warpgroup, which brings the others what they multiply and takes
// their results away. Each of its warps does one thing: keys and values; queries with the item they belong to; a warpgroup's results. What
// a warp stores costs it a trip through a busy shared memory, 850 cycles for 16 rows: short items would wait for one warp with all of it.
#pragma once
#include <cstdint>

#include "attention_prefill_tiles.cuh"
#include "ptx.cuh"
#include "ring.cuh"

namespace fireq {

struct AttentionPrefillParams {
  const uint8_t* q;        // E4M3 [tokens, queryHeads, headDim]
  const float* qScale;     // [tokens, queryHeads]
  const uint8_t* decoded;  // [tiles, keyHeads] DecodedTile: each sequence's tiles follow each other
  // Of each head, up to 128 new tokens of a sequence: the sequence's first tile, the first query's row in q as [tokens · queryHeads,
  // headDim], queries, and how many tokens of the sequence the first one sees (the next one sees one more, …). A piece ends where a tile
  // does, if not before: so the last tile alone has tokens that some of its queries don't see. Rows of a piece a block, of which the last
  // row's may have no queries: those that see most first, and each row such that all blocks get as much.
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
  static constexpr int kWarpgroups = 2, kRows = 64;  // that multiply; queries of each
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
};

namespace prefill {

/// A block's items: one of each row of gridDim.x. In the last row some have none.
struct Walk {
  const AttentionPrefillParams& p;
  int at = blockIdx.x;
  int4 work, upcoming;  // loaded an item ahead, of which `at` says where

  __device__ __forceinline__ explicit Walk(const AttentionPrefillParams& params) : p(params), work(load()) { prepare(); }
  __device__ __forceinline__ int4 load() const { return at < p.workCount ? __ldg(p.work + at) : int4{}; }
  __device__ __forceinline__ void prepare() {
    at += gridDim.x;
    upcoming = load();
  }
  __device__ __forceinline__ bool done() const { return work.z == 0; }
  /// What of the launch's list is at hand: beyond its end if nothing is.
  __device__ __forceinline__ int index() const { return at - gridDim.x; }
  __device__ __forceinline__ void next() {
    work = upcoming;
    prepare();
  }
};

/// Tiles of keys that an item's last query sees.
__device__ __forceinline__ int keyTiles(const int4& work) { return (work.w + work.z - 1 + kKeys - 1) / kKeys; }

/// A warpgroup's part of an item.
template <class C>
struct Queries {
  static constexpr int kPitch = C::kHeadDim + 16;  // bytes, spread over the banks
  alignas(16) uint8_t rows[C::kRows][kPitch];
  float scales[C::kRows];
  alignas(16) int4 work;  // the item; behind the last one it has no queries
};

template <class C>
struct Shared {
  static constexpr int kWarps = C::kWarpgroups * 4, kRowPitch = C::kHeadDim * 2 + 16;

  alignas(1024) uint8_t keys[C::kStages][kKeys * kKeyRow];
  alignas(1024) uint8_t values[C::kStages][C::kHeadDim * kKeys];
  TileScales scales[2][C::kStages];  // by parity too: a tile of keys is released before its softmax is done
  Queries<C> queries[C::kWarpgroups];
  alignas(16) uint8_t rows[kWarps][16][kRowPitch];  // results
  float2 factors[kWarps * 32];  // of a lane's two rows of sums, when its m is another one
  alignas(8) uint64_t keysFull[C::kStages], keysEmpty[C::kStages], valuesFull[C::kStages], valuesEmpty[C::kStages];
  uint64_t queriesFull[C::kWarpgroups], queriesEmpty[C::kWarpgroups], rowsFull[kWarps], rowsEmpty[kWarps];

  __device__ __forceinline__ void initBarriers() {
    const auto init = [](uint64_t* barriers, int count, int arrivals) {
      for (int i = 0; i < count; i++) ptx::barrierInit(ptx::smemAddress(barriers + i), arrivals);
    };
    init(keysFull, C::kStages, 1), init(keysEmpty, 1, kWarps * 32), init(keysEmpty + 1, C::kStages - 1, kWarps);
    init(valuesFull, C::kStages, 1), init(valuesEmpty, C::kStages, kWarps);
    init(queriesFull, C::kWarpgroups, 32), init(queriesEmpty, C::kWarpgroups, 128);
    init(rowsFull, kWarps, 1), init(rowsEmpty, kWarps, 32);
    ptx::barrierInitFence();
  }
};

/// A thread's part: keys with their scales, and values, a tile behind: those who multiply want both at once, and may have one stage.
template <class C>
__device__ __forceinline__ void fetchTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  Ring<C::kStages> keyRing, valueRing;
  const uint8_t* values = nullptr;
  const auto expect = [](uint64_t* full, uint64_t* empty, const Ring<C::kStages>& ring, uint32_t bytes) {
    const uint32_t barrier = ptx::smemAddress(full + ring.stage);
    ptx::barrierWait(ptx::smemAddress(empty + ring.stage), ring.parity ^ 1);
    ptx::barrierArriveExpect(barrier, bytes);
    return barrier;
  };
  const auto fetchValues = [&] {
    const uint32_t barrier = expect(shared.valuesFull, shared.valuesEmpty, valueRing, sizeof shared.values[0]);
    ptx::copyBulk(ptx::smemAddress(shared.values[valueRing.stage]), values, sizeof shared.values[0], barrier);
    valueRing.advance();
  };
  for (Walk walk(p); !walk.done(); walk.next()) {
    const int keyHead = walk.work.y % p.queryHeads / (p.queryHeads / p.keyHeads);
    const auto* const tiles = reinterpret_cast<const DecodedTile<C::kHeadDim>*>(p.decoded) + static_cast<size_t>(walk.work.x) * p.keyHeads + keyHead;
#pragma unroll 1
    for (int tile = 0; tile < keyTiles(walk.work); tile++, keyRing.advance()) {
      const DecodedTile<C::kHeadDim>& from = tiles[static_cast<size_t>(tile) * p.keyHeads];
      const uint32_t barrier = expect(shared.keysFull, shared.keysEmpty, keyRing, sizeof from.keys + sizeof from.scales);
      ptx::copyBulk(ptx::smemAddress(shared.keys[keyRing.stage]), from.keys, sizeof from.keys, barrier);
      ptx::copyBulk(ptx::smemAddress(&shared.scales[keyRing.parity][keyRing.stage]), &from.scales, sizeof from.scales, barrier);
      if (values) fetchValues();
      values = from.values;
    }
  }
  if (values) fetchValues();
}

/// A warp's part: each item's queries, as soon as those before are in registers. Rows beyond its queries repeat the last one.
template <class C>
__device__ __forceinline__ void fetchQueries(const AttentionPrefillParams& p, Shared<C>& shared) {
  constexpr int kLanes = C::kHeadDim / 16, kAtOnce = 32 / kLanes;  // of a row; rows
  const int lane = threadIdx.x % 32, part = lane % kLanes;
  int parity = 1;
  for (Walk walk(p);; walk.next(), parity ^= 1) {
#pragma unroll 1
    for (int group = 0; group < C::kWarpgroups; group++) {
      Queries<C>& to = shared.queries[group];
      const auto rowAt = [&](int row) { return walk.work.y + static_cast<size_t>(min(group * C::kRows + row, walk.work.z - 1)) * p.queryHeads; };
      ptx::barrierWait(ptx::smemAddress(shared.queriesEmpty + group), parity);
      if (!walk.done()) {
#pragma unroll 4
        for (int row = lane / kLanes; row < C::kRows; row += kAtOnce)
          ptx::copyAsync(ptx::smemAddress(to.rows[row]) + part * 16, p.q + rowAt(row) * C::kHeadDim + part * 16);
#pragma unroll
        for (int row = lane; row < C::kRows; row += 32) ptx::copyAsync4(ptx::smemAddress(to.scales + row), p.qScale + rowAt(row));
      }
      if (lane == 0) ptx::copyAsyncOrZero(ptx::smemAddress(&to.work), p.work + min(walk.index(), p.workCount - 1), walk.index() < p.workCount);
      ptx::copyAsyncArrive(ptx::smemAddress(shared.queriesFull + group));
    }
    if (walk.done()) break;
  }
}

/// A warp's part: results, which the warpgroup leaves in shared memory.
template <class C>
__device__ __forceinline__ void storeResults(const AttentionPrefillParams& p, Shared<C>& shared, int group) {
  constexpr int kLanes = C::kHeadDim / 8, kAtOnce = 32 / kLanes;  // of a row; rows
  const int lane = threadIdx.x % 32, first = lane / kLanes, part = lane % kLanes;
  const size_t stride = static_cast<size_t>(p.queryHeads) * C::kHeadDim;
  int parity = 0;
  for (Walk walk(p); !walk.done(); walk.next(), parity ^= 1) {
    int row = group * C::kRows + first;
    uint16_t* to = p.out + static_cast<size_t>(walk.work.y) * C::kHeadDim + row * stride + part * 8;
#pragma unroll 1
    for (int warp = group * 4; warp < group * 4 + 4; warp++) {
      uint32_t from = ptx::smemAddress(shared.rows[warp][first]) + part * 16;
      ptx::barrierWait(ptx::smemAddress(shared.rowsFull + warp), parity);
#pragma unroll 1
      for (int turn = 0; turn < 16 / kAtOnce; turn += 4) {
        uint4 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++, from += kAtOnce * Shared<C>::kRowPitch) v[i] = ptx::loadShared16(from);
#pragma unroll
        for (int i = 0; i < 4; i++, row += kAtOnce, to += kAtOnce * stride)
          if (row < walk.work.z) ptx::storeGlobal16(to, v[i]);
      }
      __syncwarp();
      ptx::barrierArrive(ptx::smemAddress(shared.rowsEmpty + warp));
    }
  }
}

/// The warpgroup.
template <class C>
__device__ __forceinline__ void feed(const AttentionPrefillParams& p, Shared<C>& shared) {
  static_assert(C::kWarpgroups == 2);
  const int warp = threadIdx.x / 32 % 4;
  if (warp < 2) storeResults(p, shared, warp);
  if (warp == 2) fetchQueries(p, shared);
  if (warp == 3 && threadIdx.x % 32 == 0) fetchTiles(p, shared);
}

}  // namespace prefill

template <class C>
constexpr int kAttentionPrefillSharedBytes = sizeof(prefill::Shared<C>) + 1024;  // the kernel aligns its base

}  // namespace fireq
