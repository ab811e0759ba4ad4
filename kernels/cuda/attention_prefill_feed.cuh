// Attention of many new tokens a sequence (attention_prefill.cuh): its third warpgroup, which brings the others what they multiply and takes
// their results away. Each of its warps does one thing: keys with their scales, values, queries with the item they belong to, results.
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
  int4 work, upcoming;  // loaded an item ahead

  __device__ __forceinline__ explicit Walk(const AttentionPrefillParams& params) : p(params), work(load()) { prepare(); }
  __device__ __forceinline__ int4 load() const { return at < p.workCount ? __ldg(p.work + at) : int4{}; }
  __device__ __forceinline__ void prepare() {
    at += gridDim.x;
    upcoming = load();
  }
  __device__ __forceinline__ bool done() const { return work.z == 0; }
  __device__ __forceinline__ void next() {
    work = upcoming;
    prepare();
  }
};

/// Tiles of keys that an item's last query sees.
__device__ __forceinline__ int keyTiles(const int4& work) { return (work.w + work.z - 1 + kKeys - 1) / kKeys; }

template <class C>
struct Shared {
  static constexpr int kQueryPitch = C::kHeadDim + 16, kRowPitch = C::kHeadDim * 2 + 16;  // bytes, spread over the banks
  static constexpr int kWarps = C::kWarpgroups * 4;

  alignas(1024) uint8_t keys[C::kStages][kKeys * kKeyRow];
  alignas(1024) uint8_t values[C::kStages][C::kHeadDim * kKeys];
  TileScales scales[2][C::kStages];  // by parity too: a tile of keys is released before its softmax is done
  alignas(16) uint8_t queries[kWarps * 16][kQueryPitch];
  float queryScales[kWarps * 16];
  alignas(16) int4 work;  // theirs; of no queries behind the last item
  alignas(16) uint8_t rows[kWarps][16][kRowPitch];  // results
  alignas(8) uint64_t keysFull[C::kStages], keysEmpty[C::kStages], valuesFull[C::kStages], valuesEmpty[C::kStages];
  alignas(8) uint64_t queriesFull, queriesEmpty, rowsFull[kWarps], rowsEmpty[kWarps];

  __device__ __forceinline__ void initBarriers() {
    const auto init = [](uint64_t* barriers, int count, int arrivals) {
      for (int i = 0; i < count; i++) ptx::barrierInit(ptx::smemAddress(barriers + i), arrivals);
    };
    init(keysFull, C::kStages, 1), init(keysEmpty, C::kStages, kWarps);
    init(valuesFull, C::kStages, 1), init(valuesEmpty, C::kStages, kWarps);
    init(&queriesFull, 1, 32), init(&queriesEmpty, 1, kWarps);
    init(rowsFull, kWarps, 1), init(rowsEmpty, kWarps, 1);
    ptx::barrierInitFence();
  }
};

/// One thread's part: keys with their scales, or values.
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
    for (int tile = 0; tile < keyTiles(walk.work); tile++, ring.advance()) {
      const DecodedTile<C::kHeadDim>& from = tiles[static_cast<size_t>(tile) * p.keyHeads];
      const uint32_t barrier = full + ring.stage * 8;
      ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      ptx::barrierArriveExpect(barrier, kValues ? kTileBytes : kTileBytes + kScaleBytes);
      ptx::copyBulk(ptx::smemAddress(kValues ? shared.values[ring.stage] : shared.keys[ring.stage]), kValues ? from.values : from.keys, kTileBytes, barrier);
      if (!kValues) ptx::copyBulk(ptx::smemAddress(&shared.scales[ring.parity][ring.stage]), &from.scales, kScaleBytes, barrier);
    }
  }
}

/// A warp's part: each item's queries, as soon as those before are in registers. Rows beyond its queries repeat the last one.
template <class C>
__device__ __forceinline__ void fetchQueries(const AttentionPrefillParams& p, Shared<C>& shared) {
  constexpr int kLanes = C::kHeadDim / 16, kAtOnce = 32 / kLanes;  // of a row; rows
  const int lane = threadIdx.x % 32, part = lane % kLanes;
  int parity = 1;
  for (Walk walk(p);; walk.next(), parity ^= 1) {
    const int4 work = walk.work;
    const auto rowAt = [&](int row) { return work.y + static_cast<size_t>(min(row, work.z - 1)) * p.queryHeads; };
    ptx::barrierWait(ptx::smemAddress(&shared.queriesEmpty), parity);
    if (lane == 0) shared.work = work;
    if (!walk.done()) {
      const uint32_t to = ptx::smemAddress(shared.queries) + part * 16;
#pragma unroll 4
      for (int row = lane / kLanes; row < kKeys; row += kAtOnce) ptx::copyAsync(to + row * Shared<C>::kQueryPitch, p.q + rowAt(row) * C::kHeadDim + part * 16);
      ptx::copyCommit();
#pragma unroll
      for (int row = lane; row < kKeys; row += 32) ptx::storeSharedFloat(ptx::smemAddress(shared.queryScales + row), __ldg(p.qScale + rowAt(row)));
      ptx::copyWait<0>();
    }
    ptx::barrierArrive(ptx::smemAddress(&shared.queriesFull));
    if (walk.done()) break;
  }
}

/// A warp's part: results, which the others leave in shared memory.
template <class C>
__device__ __forceinline__ void storeResults(const AttentionPrefillParams& p, Shared<C>& shared) {
  constexpr int kLanes = C::kHeadDim / 8, kAtOnce = 32 / kLanes;  // of a row; rows
  const int lane = threadIdx.x % 32, first = lane / kLanes, part = lane % kLanes;
  const uint32_t from = ptx::smemAddress(shared.rows) + part * 16;
  int parity = 0;
  for (Walk walk(p); !walk.done(); walk.next(), parity ^= 1) {
    uint16_t* const to = p.out + static_cast<size_t>(walk.work.y) * C::kHeadDim + part * 8;
#pragma unroll 1
    for (int warp = 0; warp < Shared<C>::kWarps; warp++) {
      ptx::barrierWait(ptx::smemAddress(shared.rowsFull + warp), parity);
#pragma unroll 1
      for (int row = warp * 16 + first; row < warp * 16 + 16; row += 4 * kAtOnce) {
        uint4 v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) v[i] = ptx::loadShared16(from + (row + i * kAtOnce) * Shared<C>::kRowPitch);
#pragma unroll
        for (int i = 0; i < 4; i++)
          if (row + i * kAtOnce < walk.work.z) ptx::storeGlobal16(to + static_cast<size_t>((row + i * kAtOnce) * p.queryHeads) * C::kHeadDim, v[i]);
      }
      __syncwarp();
      if (lane == 0) ptx::barrierArrive(ptx::smemAddress(shared.rowsEmpty + warp));
    }
  }
}

/// The warpgroup. A copy costs its thread some 150 cycles: keys and values have one each.
template <class C>
__device__ __forceinline__ void feed(const AttentionPrefillParams& p, Shared<C>& shared) {
  const int warp = threadIdx.x / 32 % 4;
  if (warp == 0 && threadIdx.x % 32 == 0) fetchTiles<C, false>(p, shared);
  if (warp == 1 && threadIdx.x % 32 == 0) fetchTiles<C, true>(p, shared);
  if (warp == 2) fetchQueries(p, shared);
  if (warp == 3) storeResults(p, shared);
}

}  // namespace prefill

template <class C>
constexpr int kAttentionPrefillSharedBytes = sizeof(prefill::Shared<C>) + 1024;  // the kernel aligns its base

}  // namespace fireq
