// Attention of many new tokens a sequence, causal, over a BF16 cache: a baseline without FP8. Decoding's arithmetic and operands
// (attention_decode.cuh: queries meet keys and values as BF16 numbers, sums are FP32), but a block's warps, 16 queries each, share what one
// more warp fetches. Each key and value is fetched once for the queries of a block and decoded once for those of a warp; on Hopper mma.sync
// has at most about 0.6 of wgmma's rate, so this isn't what to compare speeds with.
#pragma once
#include "attention_decode.cuh"
#include "ring.cuh"

namespace fireq {

struct AttentionPrefillDirectParams {
  const uint8_t* q;          // E4M3 [tokens, queryHeads, headDim]
  const float* qScale;       // [tokens, queryHeads]
  const uint8_t* cache;      // [pages, keyHeads, kPageBytes], with the new tokens
  const int32_t* pageTable;  // [sequences, pagesPerSequence]
  const int4* work;          // of each block: sequence, its first token's row of q, tokens, tokens that the first one sees
  uint16_t* out;             // BF16 [tokens, queryHeads, headDim]
  int queryHeads, keyHeads, pagesPerSequence;  // a group of query heads is a block's queries at most
  float softmaxScale;
};

namespace prefill {

template <class Layout, int kWarps_, int kStages_>
struct DirectConfig {
  static constexpr int kWarps = kWarps_, kStages = kStages_, kTiles = 2, kQueries = 16 * kWarps;
  static constexpr int kThreads = 32 * (kWarps + 1);  // the last warp fetches
  using Decode = decode::Config<Layout, kTiles, kWarps, kStages>;
  using Block = typename Decode::Block;
  struct Shared {
    alignas(128) Block blocks[kStages];
    typename Decode::QueryRows queries[kWarps];
    uint64_t full[kStages];
    uint64_t empty[kStages];
  };
};

/// One thread's part: fetches all that an item's queries see, 32 tokens at a time.
template <class C>
__device__ __forceinline__ void fetchBlocks(const AttentionPrefillDirectParams& p, typename C::Shared& shared, int sequence, int keyHead, int units) {
  constexpr int kBytes = sizeof(typename C::Block);
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const int32_t* const pages = p.pageTable + static_cast<size_t>(sequence) * p.pagesPerSequence;
  Ring<C::kStages> ring;
  for (int unit = 0; unit < units; unit++, ring.advance()) {
    ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
    ptx::barrierArriveExpect(full + ring.stage * 8, kBytes);
    const size_t block = (static_cast<size_t>(pages[unit / kPageBlocks]) * p.keyHeads + keyHead) * kPageBlocks + unit % kPageBlocks;
    ptx::copyBulk(ptx::smemAddress(&shared.blocks[ring.stage]), p.cache + block * kBytes, kBytes, full + ring.stage * 8);
  }
}

/// A warp's 16 queries. item: its new tokens as decoding has them, those of one sequence. length: tokens that its last one sees.
template <class C>
__device__ __forceinline__ void attendBlocks(const AttentionDecodeParams& item, typename C::Shared& shared, int keyHead, int length) {
  using Block = typename C::Block;
  const int warp = threadIdx.x / 32;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const decode::Segment<8 * C::kTiles> segment(item, 0, keyHead, warp);
  auto& rows = shared.queries[warp];
  typename C::Decode::QueryRows::Copies(item, segment).ask(rows);
  rows.wait();
  decode::Queries<Block> queries[C::kTiles];
  decode::Running<Block> running[C::kTiles] = {};
#pragma unroll
  for (int n = 0; n < C::kTiles; n++) {
    queries[n] = decode::loadQueries<Block>(item, rows, segment, n, length);
    running[n].largest[0] = running[n].largest[1] = -decode::kInfinity;
  }
  Ring<C::kStages> ring;
#pragma unroll 1
  for (int position = 0; position < length; position += kKvBlockTokens, ring.advance()) {
    ptx::barrierWait(full + ring.stage * 8, ring.parity);
    Block& block = shared.blocks[ring.stage];
    if (position + kKvBlockTokens > length) {
      if (warp == 0) block.clearValues(length - position);
      ptx::syncNamed(1, C::kWarps * 32);
    }
    if (position + kKvBlockTokens + item.newTokens - 1 <= length)
      decode::attend<typename C::Decode, false>(block, queries, position, length, running);
    else
      decode::attend<typename C::Decode, true>(block, queries, position, length, running);
    ptx::barrierArrive(empty + ring.stage * 8);
  }
#pragma unroll
  for (int n = 0; n < C::kTiles; n++) {
    decode::sumTotals(running[n]);
    decode::finish<typename C::Decode>(item, segment, n, running[n]);
  }
}

}  // namespace prefill

/// grid: items of work, keyHeads; C::kThreads threads.
template <class C>
__device__ __forceinline__ void attentionPrefillDirect(const AttentionPrefillDirectParams& p) {
  auto& shared = ptx::sharedMemory<typename C::Shared>();
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    beginRing(shared.full, shared.empty, C::kWarps * 32);
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::waitForPrevious();
  const int4 work = p.work[blockIdx.x];
  const int keyHead = blockIdx.y, length = work.w + work.z - 1;
  if (threadIdx.x >= C::kWarps * 32) {
    if (threadIdx.x == C::kWarps * 32) prefill::fetchBlocks<C>(p, shared, work.x, keyHead, (length + kKvBlockTokens - 1) / kKvBlockTokens);
    return;
  }
  AttentionDecodeParams item = {};
  const size_t row = static_cast<size_t>(work.y) * p.queryHeads;
  item.q = p.q + row * C::Block::kHeadDim, item.qScale = p.qScale + row, item.out = p.out + row * C::Block::kHeadDim;
  item.queryHeads = p.queryHeads, item.keyHeads = p.keyHeads, item.group = p.queryHeads / p.keyHeads, item.newTokens = work.z, item.softmaxScale = p.softmaxScale;
  prefill::attendBlocks<C>(item, shared, keyHead, length);
}

}  // namespace fireq
