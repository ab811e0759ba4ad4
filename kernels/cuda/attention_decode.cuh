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
//   Where a run's first units lie is in its record, so that copies begin after one load; what the next piece needs is asked for
//   while warps are busy with the one before.
//
// A value's scale goes into its probability: with t = score + log₂ σ the numerators are 2^(t − max t), and
// O = Σ p·(code − zero) / Σ 2^(score − max t). The zero points' share is one more row of the product.
#pragma once
#include <cstddef>

#include "attention_decode_merge.cuh"

namespace fireq {
namespace decode {

template <class Layout_, int kTiles_, int kWarps_, int kStages_>
struct Config {
  using Layout = Layout_;
  static constexpr int kTiles = kTiles_, kWarps = kWarps_, kStages = kStages_, kThreads = 32 * kWarps, kQueries = 8 * kTiles;
  static_assert(kStages <= kFirstBlocks, "a run's record says where its first units lie");
  using Block = decode::Block<Layout>;
  using Sums = decode::Sums<Layout::kHeadDim, kQueries>;
  using QueryRows = decode::QueryRows<Layout::kHeadDim, kQueries>;
  using Merges = decode::Merges<kWarps>;
  /// A warp's ring of units; what is left of its run's last piece takes its place.
  union Ring {
    Block blocks[kStages];
    Sums sums;
  };
  struct Shared {
    alignas(128) Ring rings[kWarps];
    Sums early[kWarps];         // of a run's first piece, if it isn't the last
    QueryRows queries[kWarps];  // of the next piece
    Merges merges;
    uint64_t full[kWarps][kStages];
    uint64_t merged[kWarps + 1];  // all warps of a merge have left their sums
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
        r.zeros[e] *= shrink, r.zeros[2 + e] *= shrink;
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
    uint32_t zeros[kKeys][2];
    block.template valueZeros<kMasked>(length - position, zeros);
#pragma unroll
    for (int half = 0; half < kKeys / 2; half++)
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        const uint32_t numerators[2] = {p[n][2 * half], p[n][2 * half + 1]};
        ptx::multiply<false>(running[n].zeros, zeros[2 * half][0], zeros[2 * half][1], zeros[2 * half + 1][0], zeros[2 * half + 1][1], numerators);
      }
  }
#pragma unroll
  for (int half = 0; half < kKeys / 2; half++) block.template multiplyValues<kTiles>(half, p, running);
}

/// Over the lanes that have the same queries: totals, and of a symmetric cache the zero points' share, the mean of its 16 rows.
template <class Block>
__device__ __forceinline__ void sumTotals(Running<Block>& r) {
  constexpr bool kMean = Block::kFormat == KvFormat::kInt4Symmetric;
#pragma unroll
  for (int e = 0; e < 2; e++) {
    if (kMean) r.zeros[e] = (r.zeros[e] + r.zeros[2 + e]) * (1.f / 16);
#pragma unroll
    for (int other = 4; other < 32; other *= 2) {
      r.total[e] += __shfl_xor_sync(~0u, r.total[e], other);
      if (kMean) r.zeros[e] += __shfl_xor_sync(~0u, r.zeros[e], other);
    }
  }
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

/// A warp's run of units: its copies, pieces and where each piece goes. A lane has a word of the run's record.
template <class C>
__device__ __forceinline__ void attendRun(const AttentionDecodeParams& p, typename C::Shared& shared, int word, int mergeWord) {
  using Block = typename C::Block;
  using Layout = typename C::Layout;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  auto& ring = shared.rings[warp];
  auto& rows = shared.queries[warp];
  const uint32_t full = ptx::smemAddress(shared.full[warp]);
  if (lane == 0) {
    for (int i = 0; i < C::kStages; i++) ptx::barrierInit(full + i * 8, 1);
    ptx::barrierInitFence();
  }
  __syncwarp();
  const auto recorded = [&](int i) { return __shfl_sync(~0u, word, i); };
  constexpr int kPiece = offsetof(Run, piece) / 4, kBlocks = offsetof(Run, blocks) / 4, kPieceWords = sizeof(Piece) / 4;
  const int pieces = recorded(0), units = recorded(2);
  const Piece* const run = p.pieces + recorded(1);
  // The pieces behind the first one, four at a time.
  const auto piecesFrom = [&](int i) { return i + lane / kPieceWords < pieces ? reinterpret_cast<const int*>(run + i)[lane] : 0; };
  int pieceWords = piecesFrom(1);
  const auto fetch = [&](int unit, uint32_t block, int stage) {
    if (lane != 0 || unit >= units) return;
    ptx::barrierArriveExpect(full + stage * 8, Layout::kBlockBytes);
    ptx::copyBulk(ptx::smemAddress(&ring.blocks[stage]), p.cache + static_cast<size_t>(block) * Layout::kBlockBytes, Layout::kBlockBytes, full + stage * 8);
  };
  int now = recorded(kPiece + lane % kPieceWords);  // the piece at hand, a word a lane
  const auto piece = [&](size_t offset) { return __shfl_sync(~0u, now, offset / 4); };
  const auto segmentOf = [&](int words, int at) {
    return Segment<C::kQueries>(p, __shfl_sync(~0u, words, at), __shfl_sync(~0u, words, at + 1), __shfl_sync(~0u, words, at + 2));
  };
  using Copies = typename C::QueryRows::Copies;
  const Copies queryCopies(p, segmentOf(now, 0));
  queryCopies.prefetch();
  // Tokens that aren't new are in the cache already, so these copies needn't wait for the launch before.
  const int old = min(piece(offsetof(Piece, count)), (piece(offsetof(Piece, length)) - p.newTokens) / kKvBlockTokens - piece(offsetof(Piece, first)));
  // All warps' first units, then all warps' others.
  if (old > 0) fetch(0, recorded(kBlocks), 0);
  beginMerges<C>(shared, mergeWord);
#pragma unroll
  for (int i = 1; i < C::kStages; i++)
    if (i < old) fetch(i, recorded(kBlocks + i), i);
  ptx::waitForPrevious();
  if (pieces == 0) return;
  queryCopies.ask(rows);
#pragma unroll
  for (int i = 0; i < C::kStages; i++)
    if (i >= old) fetch(i, recorded(kBlocks + i), i);
  // Where units lie that aren't in the record is looked up 32 at once, a lane each, long before.
  struct Place {
    int page, rest;
  };
  const auto locate = [&](int unit) {
    int sequence = recorded(kPiece), keyHead = recorded(kPiece + 1), inSegment = recorded(kPiece + 4) + unit;
    for (int i = 1; i < pieces && unit >= run[i].start; i++) sequence = run[i].sequence, keyHead = run[i].keyHead, inSegment = run[i].first + unit - run[i].start;
    if (unit >= units) return Place{0, 0};
    return Place{p.pageTable[static_cast<size_t>(sequence) * p.pagesPerSequence + inSegment / kPageBlocks], keyHead * kPageBlocks + inSegment % kPageBlocks};
  };
  uint32_t window = 0;
  Place nextWindow = {0, 0};
  int unit = 0, stage = 0, parity = 0;
#pragma unroll 1
  for (int i = 0; i < pieces; i++) {
    Queries<Block> queries[C::kTiles];
    const int length = piece(offsetof(Piece, length));
    rows.wait();
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) queries[n] = loadQueries<Block>(p, rows, segmentOf(now, 0), n, length);
    __syncwarp();
    if (i > 0 && i % 4 == 0) pieceWords = piecesFrom(i + 1);
    if (i + 1 < pieces) Copies(p, segmentOf(pieceWords, i % 4 * kPieceWords)).ask(rows);
    Running<Block> running[C::kTiles] = {};
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) running[n].largest[0] = running[n].largest[1] = -kInfinity;
#pragma unroll 1
    for (int position = piece(offsetof(Piece, first)) * kKvBlockTokens, end = position + piece(offsetof(Piece, count)) * kKvBlockTokens; position < end;
         position += kKvBlockTokens) {
      ptx::barrierWait(full + stage * 8, parity);
      Block& block = ring.blocks[stage];
      if (position + kKvBlockTokens + p.newTokens - 1 <= length) {
        attend<C, false>(block, queries, position, length, running);
      } else {
        block.clearValues(length - position);
        attend<C, true>(block, queries, position, length, running);
      }
      __syncwarp();
      if (unit == 0 && units > kFirstBlocks) nextWindow = locate(kFirstBlocks + lane);
      const int next = unit + C::kStages, ahead = next - kFirstBlocks;
      uint32_t at = recorded((kBlocks + next) % 32);
      if (ahead >= 0) {
        if (ahead % 32 == 0) window = nextWindow.page * p.keyHeads * kPageBlocks + nextWindow.rest, nextWindow = locate(next + 32 + lane);
        at = __shfl_sync(~0u, window, ahead % 32);
      }
      fetch(next, at, stage);
      unit++;
      if (++stage == C::kStages) stage = 0, parity ^= 1;
    }
    const Segment<C::kQueries> segment = segmentOf(now, 0);
    const int merge = piece(offsetof(Piece, merge));
#pragma unroll
    for (int n = 0; n < C::kTiles; n++) {
      sumTotals(running[n]);
      if (merge == 0)
        finish<C>(p, segment, n, running[n]);
      else
        leave<C>(i + 1 < pieces ? shared.early[warp] : ring.sums, n, running[n]);
    }
    if (merge > 0) comeToMerge<C>(shared, merge - 1);
    if (i + 1 < pieces) now = __shfl_sync(~0u, pieceWords, i % 4 * kPieceWords + lane % kPieceWords);
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
  // What there is to do, of a run's record a word a lane, of the block's merges a word a thread: the only loads that nothing hides.
  const int word = reinterpret_cast<const int*>(p.runs + blockIdx.x * C::kWarps + threadIdx.x / 32)[threadIdx.x % 32];
  const int* const merges = reinterpret_cast<const int*>(static_cast<const typename C::Merges*>(p.merges) + blockIdx.x);
  attendRun<C>(p, shared, word, threadIdx.x < sizeof(typename C::Merges) / 4 ? merges[threadIdx.x] : 0);
  merge<C>(p, shared);
}

}  // namespace fireq
