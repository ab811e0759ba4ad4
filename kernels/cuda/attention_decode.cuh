// Attention of few new tokens a sequence over a paged cache: out = softmax(q·K)·V, q in E4M3 with a scale a token and head. Codes, q and
// numerators meet as FP16 numbers (BF16 ones over a BF16 cache), all but the numerators exact.
//
// Reading the cache once is all the time there should be:
//
// * the query heads of a key-value head, and a sequence's new tokens, are the columns of one product: each key and value
//   is read and decoded once for all of them. Scores are K·qᵀ, the output is Vᵀ·pᵀ, so that 8 queries fill a tile;
// * warps work alone, on 32 tokens at a time. The cache's layout is that of mma's fragments, and a warp copies to shared
//   memory just what it reads itself, so warps never wait for each other, and blocks of tokens are always on their way;
// * a block a multiprocessor, and runs of units that are alike in length (attention_decode_plan.h): whatever the lengths, all end together.
//   Where a run's first units lie is in its record, so that copies begin after one load.
//
// A value's scale goes into its probability: with t = score + log₂ σ the numerators are 2^(t − max t), and
// O = Σ p·(code − zero) / Σ 2^(score − max t). The zero points' share is one more row of the product.
#pragma once
#include "attention_decode_queries.cuh"

namespace fireq {
namespace decode {

template <class Layout_, int kTiles_, int kWarps_, int kStages_>
struct Config {
  using Layout = Layout_;
  static constexpr int kTiles = kTiles_, kWarps = kWarps_, kStages = kStages_, kThreads = 32 * kWarps, kQueries = 8 * kTiles;
  static_assert(kStages <= kFirstBlocks, "a run's record says where its first units lie");
  using Block = decode::Block<Layout>;
  using Sums = decode::Sums<Layout::kHeadDim, kQueries>;
  using Merges = decode::Merges<kWarps>;
  /// A warp's ring of units; what is left of its run's last piece takes its place.
  union Ring {
    Block blocks[kStages];
    Sums sums;
  };
  struct Shared {
    alignas(128) Ring rings[kWarps];
    Sums early[kWarps];  // of a run's first piece, if it isn't the last
    Merges merges;
    uint64_t full[kWarps][kStages];
    bool last[2];  // of its crossing segments: this block has come last
  };
  static constexpr int kPartialFloats = kQueries * (Layout::kHeadDim + 2);
};

/// Adds a block to what has been seen. kMasked: queries don't see all of it, or it ends before.
template <class C, bool kMasked>
__device__ __forceinline__ void attend(const typename C::Block& block, const Queries<typename C::Block> (&queries)[C::kTiles], int position, int length,
                                       Running<typename C::Block> (&running)[C::kTiles]) {
  using Block = typename C::Block;
  constexpr int kTiles = C::kTiles;
  const int lane = threadIdx.x % 32;
  float score[kTiles][kKeys][2];  // times the key's scale: exponents
#pragma unroll
  for (int pair = 0; pair < kKeys / 2; pair++) {
    float dot[kTiles][2][4] = {};
    block.template multiplyKeys<kTiles>(pair, queries, dot);
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) score[n][2 * pair + i / 2][i % 2] = dot[n][0][i] + dot[n][1][i];
  }
  float keyScale[kKeys], valueScale[kKeys], t[kTiles][kKeys][2];
#pragma unroll
  for (int i = 0; i < kKeys; i++) {
    const int token = position + 8 * i + lane / 4;
    TokenScale scale = {1.f, 0.f, 1.f};
    float log2Value = 0.f;
    if constexpr (C::Layout::kHasScales) {
      scale = unpackScale<Block::kFormat>(block.scales()[8 * i + lane / 4]);
      log2Value = ptx::log2FastFtz(scale.value);
    }
    keyScale[i] = scale.key;
    valueScale[i] = scale.value * kLargestNumerator;
    if (kMasked && token >= length) keyScale[i] = 1.f, valueScale[i] = 0.f;
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& v = score[n][i][e];
        if constexpr (Block::kFormat == KvFormat::kInt4Asymmetric)
          v = fmaf(v, queries[n].scale[e], scale.keyZero * queries[n].zero[e]);
        else if constexpr (Block::kFormat == KvFormat::kInt4Symmetric)
          v = fmaf(v, queries[n].scale[e], queries[n].zero[e]);
        else
          v *= queries[n].scale[e];
        t[n][i][e] = fmaf(v, keyScale[i], log2Value);
        if (kMasked && token >= queries[n].visible[e]) v = t[n][i][e] = -kInfinity;
      }
  }

  uint32_t p[kTiles][kKeys];
#pragma unroll
  for (int n = 0; n < kTiles; n++) {
    Running<Block>& r = running[n];
    float largest[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      largest[e] = fmaxf(fmaxf(t[n][0][e], t[n][1][e]), fmaxf(t[n][2][e], t[n][3][e]));
    }
    if (__any_sync(~0u, largest[0] > r.largest[0] || largest[1] > r.largest[1])) {
#pragma unroll
      for (int e = 0; e < 2; e++) {
        largest[e] = fmaxf(largest[e], r.largest[e]);
#pragma unroll
        for (int other = 4; other < 32; other *= 2) largest[e] = fmaxf(largest[e], __shfl_xor_sync(~0u, largest[e], other));
        const float shrink = largest[e] == -kInfinity ? 1.f : ptx::exp2Fast(r.largest[e] - largest[e]);
#pragma unroll
        for (int o = 0; o < Block::kSteps; o++) r.out[o][e] *= shrink, r.out[o][2 + e] *= shrink;
        r.zeros[e] *= shrink;
        r.total[e] *= shrink;
        r.largest[e] = largest[e];
      }
    }
    const float base[2] = {r.largest[0] == -kInfinity ? 0.f : -r.largest[0], r.largest[1] == -kInfinity ? 0.f : -r.largest[1]};
#pragma unroll
    for (int i = 0; i < kKeys; i++) {
      const float a = ptx::exp2Fast(fmaf(score[n][i][0], keyScale[i], base[0])), b = ptx::exp2Fast(fmaf(score[n][i][1], keyScale[i], base[1]));
      r.total[0] += a, r.total[1] += b;
      // A lane's key and queries 2l, 2l + 1 → those of its query (lane / 4) and keys 2l, 2l + 1.
      const float x = a * valueScale[i], y = b * valueScale[i];
      p[n][i] = ptx::transposeMatrix(Block::kBf16 ? ptx::packBf16(x, y) : ptx::packHalf(x, y));
    }
  }

  if constexpr (C::Layout::kIsInt4) {
    uint32_t zeros[kKeys];
    block.template valueZeros<kMasked>(length - position, zeros);
#pragma unroll
    for (int half = 0; half < kKeys / 2; half++)
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        const uint32_t numerators[2] = {p[n][2 * half], p[n][2 * half + 1]};
        ptx::multiply<false>(running[n].zeros, zeros[2 * half], zeros[2 * half], zeros[2 * half + 1], zeros[2 * half + 1], numerators);
      }
  }
#pragma unroll
  for (int half = 0; half < kKeys / 2; half++) block.template multiplyValues<kTiles>(half, p, running);
}

/// Over the lanes that have the same queries.
template <class Block>
__device__ __forceinline__ void sumTotals(Running<Block>& r) {
#pragma unroll
  for (int e = 0; e < 2; e++)
#pragma unroll
    for (int other = 4; other < 32; other *= 2) r.total[e] += __shfl_xor_sync(~0u, r.total[e], other);
}

/// The results of 8 queries, from registers: neighbouring lanes make pairs of channels, a query each.
template <class C>
__device__ __forceinline__ void finish(const AttentionDecodeParams& p, const Segment<C::kQueries>& segment, int tile, const Running<typename C::Block>& r) {
  using Block = typename C::Block;
  const int lane = threadIdx.x % 32, g = lane / 4, odd = g & 1, query = tile * 8 + lane % 4 * 2 + odd;
  const float factor[2] = {resultFactor<Block>(r.total[0]), resultFactor<Block>(r.total[1])};
  const bool exists = query < segment.queries;
  uint16_t* const to = p.out + segment.row(p, exists ? query : 0) * Block::kHeadDim + (g & ~1);
#pragma unroll
  for (int o = 0; o < Block::kSteps; o++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float v0 = (r.out[o][2 * half] * Block::outUnit(o) - r.zeros[0]) * factor[0];
      const float v1 = (r.out[o][2 * half + 1] * Block::outUnit(o) - r.zeros[1]) * factor[1];
      const float other = __shfl_xor_sync(~0u, odd ? v0 : v1, 4);
      if (exists) *reinterpret_cast<uint32_t*>(to + 16 * o + 8 * half) = odd ? ptx::packBf16(other, v1) : ptx::packBf16(v0, other);
    }
}

template <class C>
__device__ __forceinline__ void leave(typename C::Sums& sums, int tile, const Running<typename C::Block>& r) {
  using Block = typename C::Block;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int e = 0; e < 2; e++) {
    const int query = tile * 8 + lane % 4 * 2 + e;
    if (lane < 4) sums.largest[query] = r.largest[e], sums.total[query] = r.total[e];
#pragma unroll
    for (int o = 0; o < Block::kSteps; o++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        sums.out[query][16 * o + 8 * half + lane / 4] = r.out[o][2 * half + e] * Block::outUnit(o) - r.zeros[e];
  }
}

/// A warp's run of units: its copies, pieces and where each piece goes.
template <class C>
__device__ __forceinline__ void attendRun(const AttentionDecodeParams& p, typename C::Shared& shared) {
  using Block = typename C::Block;
  using Layout = typename C::Layout;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto& ring = shared.rings[warp];
  const uint32_t full = ptx::smemAddress(shared.full[warp]);
  // A lane has a word of the record.
  const int word = reinterpret_cast<const int*>(p.runs + blockIdx.x * C::kWarps + warp)[lane % (sizeof(Run) / 4)];
  if (lane == 0) {
    for (int i = 0; i < C::kStages; i++) ptx::barrierInit(full + i * 8, 1);
    ptx::barrierInitFence();
  }
  __syncwarp();
  const auto recorded = [&](int i) { return __shfl_sync(~0u, word, i); };
  const int pieces = recorded(0), units = recorded(2);
  const Piece* const run = p.pieces + recorded(1);
  if (pieces == 0) return;
  const auto fetch = [&](int unit, uint32_t block, int stage) {
    if (lane != 0 || unit >= units) return;
    ptx::barrierArriveExpect(full + stage * 8, Layout::kBlockBytes);
    ptx::copyBulk(ptx::smemAddress(&ring.blocks[stage]), p.cache + static_cast<size_t>(block) * Layout::kBlockBytes, Layout::kBlockBytes, full + stage * 8);
  };
  ptx::waitForPrevious();
#pragma unroll
  for (int i = 0; i < C::kStages; i++) fetch(i, recorded(4 + i), i);
  // Where units lie is looked up 32 at once, a lane each, long before.
  const auto locate = [&](int unit) -> uint32_t {
    if (unit >= units) return 0;
    int i = 0;
    while (i + 1 < pieces && unit >= run[i + 1].start) i++;
    const int inSegment = run[i].first + unit - run[i].start;
    const int page = p.pageTable[static_cast<size_t>(run[i].sequence) * p.pagesPerSequence + inSegment / kPageBlocks];
    return (static_cast<uint32_t>(page) * p.keyHeads + run[i].keyHead) * kPageBlocks + inSegment % kPageBlocks;
  };
  uint32_t window = locate(lane), nextWindow = locate(32 + lane);
  int unit = 0, stage = 0, parity = 0;
#pragma unroll 1
  for (int i = 0; i < pieces; i++) {
    const Piece piece = run[i];
    const Segment<C::kQueries> segment(p, piece.sequence, piece.keyHead, piece.part);
    Queries<Block> queries[C::kTiles];
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) queries[n] = loadQueries<Block>(p, segment, n, piece.length);
    Running<Block> running[C::kTiles] = {};
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) running[n].largest[0] = running[n].largest[1] = -kInfinity;
#pragma unroll 1
    for (int position = piece.first * kKvBlockTokens, end = position + piece.count * kKvBlockTokens; position < end; position += kKvBlockTokens) {
      ptx::barrierWait(full + stage * 8, parity);
      Block& block = ring.blocks[stage];
      if (position + kKvBlockTokens + p.newTokens - 1 <= piece.length) {
        attend<C, false>(block, queries, position, piece.length, running);
      } else {
        block.clearValues(piece.length - position);
        attend<C, true>(block, queries, position, piece.length, running);
      }
      __syncwarp();
      const int next = unit + C::kStages;
      if (next % 32 == 0) window = nextWindow, nextWindow = locate(next + 32 + lane);
      fetch(next, __shfl_sync(~0u, window, next % 32), stage);
      unit++;
      if (++stage == C::kStages) stage = 0, parity ^= 1;
    }
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) {
      sumTotals(running[n]);
      if (!piece.partial)
        finish<C>(p, segment, n, running[n]);
      else
        leave<C>(i + 1 < pieces ? shared.early[warp] : ring.sums, n, running[n]);
    }
  }
}

/// Of several sources of sums, in order: `largestOf(s)`, `totalOf(s)` and a lane's share of their rows.
template <class C, class Largest, class Total, class Row>
__device__ __forceinline__ void addUp(int sources, const Largest& largestOf, const Total& totalOf, const Row& rowOf, Share<C::Layout::kHeadDim>& sum,
                                      float& largest, float& total) {
  const int lane = threadIdx.x % 32;
  largest = -kInfinity, total = 0.f, sum = {};
  for (int s = lane; s < sources; s += 32) largest = fmaxf(largest, largestOf(s));
#pragma unroll
  for (int other = 1; other < 32; other *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, other));
  const float base = largest == -kInfinity ? 0.f : largest;
#pragma unroll 1
  for (int first = 0; first < sources; first += 32) {
    const int mine = first + lane;
    const float factor = mine < sources ? ptx::exp2Fast(largestOf(mine) - base) : 0.f;
    if (mine < sources) total += factor * totalOf(mine);
    const int count = min(32, sources - first);
#pragma unroll 4
    for (int s = 0; s < count; s++) {
      const float f = __shfl_sync(~0u, factor, s);
      const Share<C::Layout::kHeadDim> row = rowOf(first + s);
#pragma unroll
      for (int k = 0; k < row.kCount; k++) sum.v[k] = fmaf(row.v[k], f, sum.v[k]);
    }
  }
#pragma unroll
  for (int other = 1; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
}

/// Adds up what the block's warps have of each segment that isn't one warp's, and what blocks have of those that aren't one block's: the
/// last block to come does.
template <class C>
__device__ __forceinline__ void merge(const AttentionDecodeParams& p, typename C::Shared& shared) {
  using Row = Share<C::Layout::kHeadDim>;
  constexpr int kD = C::Layout::kHeadDim;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, most = min(C::kQueries, p.group * p.newTokens);
  const int count = shared.merges.count;
  for (int i = warp; i < count * most; i += C::kWarps) {
    const Merge& m = shared.merges.merges[i / most];
    const int query = i % most;
    const Segment<C::kQueries> segment(p, m.sequence, m.keyHead, m.part);
    if (query >= segment.queries) continue;
    const auto source = [&](int s) -> const typename C::Sums& {
      return m.early && s == m.warps - 1 ? shared.early[m.firstWarp + s] : shared.rings[m.firstWarp + s].sums;
    };
    Row sum;
    float largest, total;
    addUp<C>(
        m.warps, [&](int s) { return source(s).largest[query]; }, [&](int s) { return source(s).total[query]; },
        [&](int s) { return reinterpret_cast<const Row*>(source(s).out[query])[lane]; }, sum, largest, total);
    if (m.crossing < 0) {
      storeOut(p, segment.row(p, query), sum, resultFactor<typename C::Block>(total));
    } else {  // of each: [queries][headDim] sums, [queries] largest exponents, [queries] totals
      float* const to = p.partial + static_cast<size_t>(m.slot) * C::kPartialFloats;
#pragma unroll
      for (int k = 0; k < Row::kCount; k++) __stcg(to + query * kD + lane * Row::kCount + k, sum.v[k]);
      if (lane == 0) __stcg(to + C::kQueries * kD + query, largest), __stcg(to + C::kQueries * (kD + 1) + query, total);
    }
  }
  // Segments that cross are the block's first and last ones.
  const auto side = [&](int i) -> const Merge& { return shared.merges.merges[i == 0 ? 0 : count - 1]; };
  const auto crosses = [&](int i) { return side(i).crossing >= 0 && (i == 0 || count > 1); };
  if (!crosses(0) && !crosses(1)) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x < 2) {
    const int i = threadIdx.x;
    const Merge& m = side(i);
    shared.last[i] = crosses(i) && atomicAdd(p.arrived + m.crossing, 1u) == static_cast<uint32_t>(m.slots) - 1;
    if (shared.last[i]) p.arrived[m.crossing] = 0;
  }
  __syncthreads();
  __threadfence();
#pragma unroll 1
  for (int i = 0; i < 2; i++) {
    if (!shared.last[i]) continue;
    const Merge& m = side(i);
    const Segment<C::kQueries> segment(p, m.sequence, m.keyHead, m.part);
    for (int query = warp; query < segment.queries; query += C::kWarps) {
      const float* const from = p.partial + static_cast<size_t>(m.firstSlot) * C::kPartialFloats;
      Row sum;
      float largest, total;
      addUp<C>(
          m.slots, [&](int s) { return __ldcg(from + s * C::kPartialFloats + C::kQueries * kD + query); },
          [&](int s) { return __ldcg(from + s * C::kPartialFloats + C::kQueries * (kD + 1) + query); },
          [&](int s) {
            Row row;
            const float* const at = from + s * C::kPartialFloats + query * kD + lane * Row::kCount;
            if constexpr (kD == 128) {
              const float4 v = __ldcg(reinterpret_cast<const float4*>(at));
              row.v[0] = v.x, row.v[1] = v.y, row.v[2] = v.z, row.v[3] = v.w;
            } else {
              const float2 v = __ldcg(reinterpret_cast<const float2*>(at));
              row.v[0] = v.x, row.v[1] = v.y;
            }
            return row;
          },
          sum, largest, total);
      storeOut(p, segment.row(p, query), sum, resultFactor<typename C::Block>(total));
    }
  }
}

}  // namespace decode

/// grid: as many blocks as the plan has; C::kThreads threads.
template <class C>
__device__ __forceinline__ void attentionDecode(const AttentionDecodeParams& p) {
  using namespace decode;
  extern __shared__ __align__(128) uint8_t memory[];
  auto& shared = *reinterpret_cast<typename C::Shared*>(memory);
  ptx::launchDependents();
  const int* const merges = reinterpret_cast<const int*>(static_cast<const typename C::Merges*>(p.merges) + blockIdx.x);
  const int count = merges[0];
  for (int i = threadIdx.x; i < static_cast<int>(sizeof(typename C::Merges) / 4); i += C::kThreads) reinterpret_cast<int*>(&shared.merges)[i] = merges[i];
  attendRun<C>(p, shared);
  if (count == 0) return;
  __syncthreads();
  merge<C>(p, shared);
}

}  // namespace fireq
