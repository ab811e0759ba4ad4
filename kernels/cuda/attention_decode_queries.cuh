// Queries of attention_decode, what a warp has seen so far, and how sums meet.
#pragma once
#include <cstdint>

#include "attention_decode_operands.cuh"
#include "attention_decode_plan.h"

namespace fireq {

struct AttentionDecodeParams {
  const uint8_t* q;          // E4M3 [sequences · newTokens, queryHeads, headDim]
  const float* qScale;       // [sequences · newTokens, queryHeads]
  const uint8_t* cache;      // [pages, keyHeads, kPageBytes]
  const int32_t* pageTable;  // [sequences, pagesPerSequence]
  const decode::Run* runs;   // [blocks, warps]
  const decode::Piece* pieces;
  const void* merges;  // Merges [blocks]
  uint16_t* out;       // BF16 [sequences · newTokens, queryHeads, headDim]
  float* partial;      // [2 · blocks, queries · (headDim + 2)]: of segments that several blocks have
  uint32_t* arrived;   // [blocks, queries], zero before and after
  int queryHeads, keyHeads, group, newTokens, pagesPerSequence;  // group: query heads a key-value head
  float softmaxScale;
};

namespace decode {

constexpr float kInfinity = __builtin_huge_valf(), kLog2e = 1.4426950408889634f;
constexpr float kLargestNumerator = 0x1p14f;  // FP16 then reaches down to 2⁻³⁸ of the largest

/// A segment: queries of a key-value head. Query r is new token r / group, head r % group.
template <int kQueries>
struct Segment {
  int sequence, keyHead, firstQuery, queries;
  __device__ __forceinline__ Segment(const AttentionDecodeParams& p, int sequence, int keyHead, int part)
      : sequence(sequence), keyHead(keyHead), firstQuery(part * kQueries) {
    queries = min(kQueries, p.group * p.newTokens - firstQuery);
  }
  __device__ __forceinline__ int token(const AttentionDecodeParams& p, int query) const {
    return p.newTokens == 1 ? 0 : (firstQuery + query) / p.group;  // mostly 0, and a quotient takes long
  }
  /// Where a query lies in q and out, in heads.
  __device__ __forceinline__ size_t row(const AttentionDecodeParams& p, int query) const {
    const int of = token(p, query);
    return (static_cast<size_t>(sequence) * p.newTokens + of) * p.queryHeads + keyHead * p.group + (firstQuery + query - of * p.group);
  }
};

/// 8 queries as a lane holds them: query lane / 4 as an operand, queries 2 (lane % 4) + {0, 1} of results. Those that there aren't see
/// nothing.
template <class Block>
struct Queries {
  uint32_t q[Block::kSteps][2];  // B fragments, 16 channels each
  int visible[2];                // tokens that a query sees
  float scale[2];                // on products, to base-2 exponents
  float zero[2];                 // on a key's zero point: what it adds to a score; symmetric: what all add
};

/// A segment's queries on their way to registers. Rows are padded so that eight of them lie in different banks.
template <int kHeadDim, int kQueries>
struct QueryRows {
  alignas(16) uint8_t codes[kQueries][kHeadDim + 16];
  float scale[kQueries];

  /// What a lane copies: found ahead of the launch before's end.
  class Copies {
   public:
    __device__ __forceinline__ Copies(const AttentionDecodeParams& p, const Segment<kQueries>& segment) : queries_(segment.queries) {
#pragma unroll
      for (int k = 0; k < kCopies; k++) {
        const int query = (threadIdx.x % 32 + 32 * k) / kRow;
        codes_[k] = p.q + segment.row(p, query < queries_ ? query : 0) * kHeadDim;
      }
      const int query = threadIdx.x % 32;
      scale_ = p.qScale + segment.row(p, query < queries_ ? query : 0);
    }
    /// Into the L2, ahead of all that is asked for next.
    __device__ __forceinline__ void prefetch() const {
#pragma unroll
      for (int k = 0; k < kCopies; k++) ptx::prefetchL2(codes_[k] + threadIdx.x % kRow * 16);
      ptx::prefetchL2(scale_);
    }
    /// By all lanes of a warp; `wait` once they are wanted.
    __device__ __forceinline__ void ask(QueryRows& rows) const {
      const int lane = threadIdx.x % 32;
#pragma unroll
      for (int k = 0; k < kCopies; k++) {
        const int query = (lane + 32 * k) / kRow, at = lane % kRow * 16;
        if (query < queries_) ptx::copyAsyncKept(ptx::smemAddress(&rows.codes[query][at]), codes_[k] + at);
      }
      if (lane < queries_) ptx::copyAsync4(ptx::smemAddress(&rows.scale[lane]), scale_);
      ptx::copyCommit();
    }

   private:
    static constexpr int kRow = kHeadDim / 16, kCopies = kQueries * kRow / 32;  // copies of 16 bytes, of a row and a lane
    int queries_;
    const uint8_t* codes_[kCopies];
    const float* scale_;
  };
  static __device__ __forceinline__ void wait() {
    ptx::copyWait<0>();
    __syncwarp();
  }
};

template <class Block, int kQueries>
__device__ __forceinline__ Queries<Block> loadQueries(const AttentionDecodeParams& p, const QueryRows<Block::kHeadDim, kQueries>& rows,
                                                      const Segment<kQueries>& segment, int tile, int length) {
  Queries<Block> queries;
  const int lane = threadIdx.x % 32, l = lane % 4, mine = tile * 8 + lane / 4;
  const bool used = mine < segment.queries;
  const uint8_t* const from = rows.codes[mine];
  float sum = 0.f;
#pragma unroll
  for (int s = 0; s < Block::kSteps; s++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      uint32_t pair = ptx::e4m3ToHalves(used ? *reinterpret_cast<const uint16_t*>(from + Block::channel(s, half, l)) : 0);
      const float2 v = ptx::unpackHalf(pair);
      sum += v.x + v.y;
      if constexpr (Block::kBf16) pair = ptx::packBf16(v.x, v.y);
      if (Block::kSecondHalfHigh && half == 1) pair = ptx::multiplyHalves(pair, 0x2c002c00u);  // 2⁻⁴ = kLowUnit / kHighUnit
      queries.q[s][half] = pair;
    }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
#pragma unroll
  for (int e = 0; e < 2; e++) {
    const int query = tile * 8 + 2 * l + e;
    const bool exists = query < segment.queries;
    const float scale = exists ? rows.scale[query] * p.softmaxScale * kLog2e : 0.f;
    queries.visible[e] = exists ? length - (p.newTokens - 1 - segment.token(p, query)) : 0;
    queries.scale[e] = scale / Block::kUnit;
    queries.zero[e] = -scale * __shfl_sync(~0u, sum, (2 * l + e) * 4) * (Block::kFormat == KvFormat::kInt4Symmetric ? 8.f : 1.f);
  }
  return queries;
}

/// What a warp has seen so far, for 8 queries.
template <class Block>
struct Running {
  float out[Block::kSteps][4];  // see multiplyValues
  float zeros[4];               // Σ p·zero, in Block::kUnit (INT4), in every row; symmetric: until sumTotals, by the rows of valueZeros
  float largest[2], total[2];   // total: of a lane's keys
};

/// What is left of a segment where others add to it.
template <int kHeadDim, int kQueries>
struct Sums {
  float out[kQueries][kHeadDim + 4];
  float largest[kQueries], total[kQueries];
};

/// From sums to results.
template <class Block>
__device__ __forceinline__ float resultFactor(float total) {
  return total > 0.f ? 1 / (Block::kUnit * kLargestNumerator) * ptx::reciprocal(total) : 0.f;
}

}  // namespace decode
}  // namespace fireq
