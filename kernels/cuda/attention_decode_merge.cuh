// How sums of attention_decode meet: of the warps of a block, then of the blocks that have pieces of a segment.
#pragma once
#include "attention_decode_queries.cuh"

namespace fireq::decode {

/// A lane's share of a row of sums.
template <int kHeadDim>
struct alignas(kHeadDim / 8) Share {
  static constexpr int kCount = kHeadDim / 32;
  float v[kCount];

  /// Global memory, past the L1.
  __device__ __forceinline__ Share load() const {
    if constexpr (kCount == 4) {
      const float4 f = __ldcg(reinterpret_cast<const float4*>(v));
      return {f.x, f.y, f.z, f.w};
    } else {
      const float2 f = __ldcg(reinterpret_cast<const float2*>(v));
      return {f.x, f.y};
    }
  }
  __device__ __forceinline__ void store(const Share& from) {
    if constexpr (kCount == 4)
      __stcg(reinterpret_cast<float4*>(v), make_float4(from.v[0], from.v[1], from.v[2], from.v[3]));
    else
      __stcg(reinterpret_cast<float2*>(v), make_float2(from.v[0], from.v[1]));
  }
};

template <int kHeadDim>
__device__ __forceinline__ void storeOut(const AttentionDecodeParams& p, size_t row, const Share<kHeadDim>& sum, float factor) {
  uint32_t* const to = reinterpret_cast<uint32_t*>(p.out + row * kHeadDim) + threadIdx.x % 32 * (kHeadDim / 64);
  if constexpr (kHeadDim == 128)
    *reinterpret_cast<uint2*>(to) = make_uint2(ptx::packBf16(sum.v[0] * factor, sum.v[1] * factor), ptx::packBf16(sum.v[2] * factor, sum.v[3] * factor));
  else
    *to = ptx::packBf16(sum.v[0] * factor, sum.v[1] * factor);
}

/// Of several sources of sums, in order: `largestOf(s)`, `totalOf(s)` and `rowOf(s)`, a lane's share of a row. The first kAtOnce
/// are asked for together: they may come from afar.
template <int kAtOnce, int kHeadDim, class Largest, class Total, class Row>
__device__ __forceinline__ void addUp(int sources, const Largest& largestOf, const Total& totalOf, const Row& rowOf, Share<kHeadDim>& sum, float& largest,
                                      float& total) {
  static_assert(32 % kAtOnce == 0);
  const int lane = threadIdx.x % 32;
  float mine = lane < sources ? largestOf(lane) : -kInfinity, mineTotal = lane < sources ? totalOf(lane) : 0.f;
  Share<kHeadDim> rows[kAtOnce];
  const auto ask = [&](int first) {
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) rows[k] = first + k < sources ? rowOf(first + k) : Share<kHeadDim>{};
  };
  ask(0);
  largest = mine, total = 0.f, sum = {};
  for (int s = lane + 32; s < sources; s += 32) largest = fmaxf(largest, largestOf(s));
#pragma unroll
  for (int other = 1; other < 32; other *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, other));
  const float base = largest == -kInfinity ? 0.f : largest;
  float factor = 0.f;
#pragma unroll 1
  for (int first = 0; first < sources; first += kAtOnce) {
    if (first > 0) ask(first);
    if (first % 32 == 0) {
      if (first > 0) {
        const int s = first + lane;
        mine = s < sources ? largestOf(s) : -kInfinity, mineTotal = s < sources ? totalOf(s) : 0.f;
      }
      factor = ptx::exp2Fast(mine - base);
      total = fmaf(factor, mineTotal, total);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; k++) {
      const float f = __shfl_sync(~0u, factor, (first + k) % 32);
#pragma unroll
      for (int i = 0; i < rows[k].kCount; i++) sum.v[i] = fmaf(rows[k].v[i], f, sum.v[i]);
    }
  }
#pragma unroll
  for (int other = 1; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
}

/// What blocks have of a segment's query: a block leaves its own, and the last one to come adds all up.
template <class C>
__device__ __forceinline__ void meetBlocks(const AttentionDecodeParams& p, const Merge& m, const Segment<C::kQueries>& segment, int query,
                                           const Share<C::Layout::kHeadDim>& mine, float mineLargest, float mineTotal) {
  using Row = Share<C::Layout::kHeadDim>;
  constexpr int kD = C::Layout::kHeadDim;
  const int lane = threadIdx.x % 32;
  // Of a block: [queries][headDim] sums, [queries] largest exponents, [queries] totals.
  const auto rowAt = [&](int slot) { return reinterpret_cast<Row*>(p.partial + static_cast<size_t>(slot) * C::kPartialFloats + query * kD) + lane; };
  const auto largestAt = [&](int slot) { return p.partial + static_cast<size_t>(slot) * C::kPartialFloats + C::kQueries * kD + query; };
  rowAt(m.slot)->store(mine);
  if (lane == 0) __stcg(largestAt(m.slot), mineLargest), __stcg(largestAt(m.slot) + C::kQueries, mineTotal);
  __syncwarp();
  uint32_t* const arrived = p.arrived + m.crossing * C::kQueries + query;
  uint32_t before = 0;
  if (lane == 0) before = ptx::addInOrder(arrived, 1);
  if (__shfl_sync(~0u, before, 0) != static_cast<uint32_t>(m.slots) - 1) return;
  __syncwarp();
  if (lane == 0) *arrived = 0;
  Row sum;
  float largest, total;
  addUp<8, kD>(
      m.slots, [&](int s) { return __ldcg(largestAt(m.firstSlot + s)); }, [&](int s) { return __ldcg(largestAt(m.firstSlot + s) + C::kQueries); },
      [&](int s) { return rowAt(m.firstSlot + s)->load(); }, sum, largest, total);
  storeOut(p, segment.row(p, query), sum, resultFactor<typename C::Block>(total));
}

/// The block's merges and how many of their warps have come, by all threads: a thread has a word.
template <class C>
__device__ __forceinline__ void beginMerges(typename C::Shared& shared, int word) {
  constexpr int kWords = sizeof(typename C::Merges) / 4;
  static_assert(kWords <= C::kThreads);
  const int thread = threadIdx.x;
  if (thread < kWords) reinterpret_cast<int*>(&shared.merges)[thread] = word;
  __syncthreads();
  if (thread == 0) {
    for (int i = 0; i < shared.merges.count; i++) ptx::barrierInit(ptx::smemAddress(&shared.merged[i]), shared.merges.merges[i].warps * 32);
    ptx::barrierInitFence();
  }
  __syncthreads();
}

/// This lane has left its share of the sums for merge i.
template <class C>
__device__ __forceinline__ void comeToMerge(typename C::Shared& shared, int i) {
  ptx::barrierArrive(ptx::smemAddress(&shared.merged[i]));
}

/// What a warp, at its run's end, has to do for the block's merges: a query each from the merge's first warp on, so that those of few
/// warps get help.
template <class C>
__device__ __forceinline__ void merge(const AttentionDecodeParams& p, typename C::Shared& shared) {
  using Row = Share<C::Layout::kHeadDim>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
  for (int i = 0; i < shared.merges.count; i++) {
    const Merge& m = shared.merges.merges[i];
    const Segment<C::kQueries> segment(p, m.sequence, m.keyHead, m.part);
    const int behind = warp - m.firstWarp;
#pragma unroll 1
    for (int query = behind + (behind < 0 ? C::kWarps : 0); query < segment.queries; query += C::kWarps) {
      ptx::barrierWait(ptx::smemAddress(&shared.merged[i]), 0);
      const int sources = m.warps, firstWarp = m.firstWarp, earlySource = m.early ? sources - 1 : -1;
      const auto source = [&](int s) -> const typename C::Sums& {
        return s == earlySource ? shared.early[firstWarp + s] : shared.rings[firstWarp + s].sums;
      };
      Row sum;
      float largest, total;
      addUp<4, C::Layout::kHeadDim>(
          sources, [&](int s) { return source(s).largest[query]; }, [&](int s) { return source(s).total[query]; },
          [&](int s) { return reinterpret_cast<const Row*>(source(s).out[query])[lane]; }, sum, largest, total);
      if (m.crossing < 0)
        storeOut(p, segment.row(p, query), sum, resultFactor<typename C::Block>(total));
      else
        meetBlocks<C>(p, m, segment, query, sum, largest, total);
    }
  }
}

}  // namespace fireq::decode
