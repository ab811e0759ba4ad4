// Attention of few new tokens a sequence over a paged INT4 cache: out = softmax(q·K)·V, q in E4M3 with a scale a token and
// head. Codes, q and numerators meet as FP16 numbers, all but the numerators exact.
//
// Reading the cache once is all the time there should be:
//
// * the query heads of a key-value head, and a sequence's new tokens, are the columns of one product: each key and value
//   is read and decoded once for all of them. Scores are K·qᵀ, the output is Vᵀ·pᵀ, so that 8 queries fill a tile;
// * warps work alone, on 32 tokens at a time. The cache's layout is that of mma's fragments, and a warp copies to shared
//   memory just what it reads itself, so warps never wait for each other, and a page of tokens a warp is always on its way;
// * a sequence is cut into chunks of a fixed length, one block each; the block that finishes a sequence last adds up the
//   chunks in order. Lengths are read on the device, so that a captured graph serves any.
//
// A value's scale goes into its probability: with t = score + log₂ σ the numerators are 2^(t − max t), in FP16, and
// O = Σ p·(code − zero) / Σ 2^(score − max t). The zero points' share is one more row of the product.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"

namespace fireq {

struct AttentionDecodeParams {
  const uint8_t* q;            // E4M3 [sequences · newTokens, queryHeads, 128]
  const float* qScale;         // [sequences · newTokens, queryHeads]
  const uint8_t* cache;        // [pages, keyHeads, kKvPageBytes]
  const int32_t* pageTable;    // [sequences, pagesPerSequence]
  const int32_t* lengths;      // [sequences], with the new tokens
  uint16_t* out;               // BF16 [sequences · newTokens, queryHeads, 128]
  float* partial;              // [sequences, keyHeads, chunks, 16 · (128 + 2)]: of sequences of more than one chunk
  uint32_t* arrived;           // [sequences, keyHeads], zero before and after
  int queryHeads, keyHeads, newTokens, pagesPerSequence;
  int chunkTokens;             // a multiple of 64
  float softmaxScale;
};

namespace decode {

constexpr int kWarps = 4, kStages = 2, kKeys = kKvBlockTokens / 8;  // keys of a block that a lane has scores of
constexpr int kMaxQueries = 16, kPartialFloats = kMaxQueries * (kHeadDim + 2);
constexpr float kInfinity = __builtin_huge_valf(), kLog2e = 1.4426950408889634f;
constexpr float kLog2Numerator = 14.f;  // numerators are up to 2¹⁴: FP16 then reaches down to 2⁻³⁸ of the largest

__device__ __forceinline__ void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b[0]), "r"(b[1]));
}
/// Nibble j of each half of a word, as FP16: kLowUnit for j = 0, 2, kHighUnit for 1, 3.
template <int kNibble>
__device__ __forceinline__ uint32_t codes(uint32_t word) {
  return (kNibble < 2 ? word : word >> 8) & (kNibble % 2 ? 0x00f000f0u : 0x000f000fu);
}

/// Numerators of a lane's key and queries 2l, 2l + 1 → those of its query (lane / 4) and keys 2l, 2l + 1.
__device__ __forceinline__ uint32_t transpose(float even, float odd) {
  uint32_t halves;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(odd), "f"(even));
  return ptx::transposeMatrix(halves);
}
/// The two E4M3 numbers in the low half of `bytes`, in FP16.
__device__ __forceinline__ uint32_t e4m3ToHalves(uint32_t bytes) {
  uint32_t halves;
  asm("{.reg .b16 b;\ncvt.u16.u32 b, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(bytes));
  return halves;
}
__device__ __forceinline__ float2 halvesToFloats(uint32_t halves) {
  float2 v;
  asm("{.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}" : "=f"(v.x), "=f"(v.y) : "r"(halves));
  return v;
}
__device__ __forceinline__ float e4m3ToFloat(uint32_t byte) { return halvesToFloats(e4m3ToHalves(byte)).x; }

struct TokenScale {
  float key, keyZero, value;
  uint32_t valueZero;
};

template <ScaleFormat kFormat>
__device__ __forceinline__ TokenScale unpackScale(uint32_t word) {
  if constexpr (kFormat == ScaleFormat::kBf16Symmetric)
    return {__uint_as_float(word << 16), 8.f, __uint_as_float(word & 0xffff0000u), 8};
  else
    return {e4m3ToFloat(word), static_cast<float>(word >> 8 & 0xff), e4m3ToFloat(word >> 16), word >> 24};
}

/// 32 tokens of one key-value head in shared memory.
struct Block {
  uint4 keys[kKeys][32];     // tokens 8i + lane / 4
  uint4 values[kKeys][32];   // at l · 8 + (n ^ 2l): tokens 8i + 2l + {0, 1}, channels 8m + n
  uint32_t scales[kKvBlockTokens];

  __device__ __forceinline__ const uint4& value(int i) const {
    const int l = threadIdx.x % 4, n = threadIdx.x % 32 / 4;
    return values[i][l * 8 + (n ^ 2 * l)];
  }
};
static_assert(sizeof(Block) == kKvBlockBytes, "one bulk copy fetches a block");

/// 8 queries as a lane holds them: query 8n + lane / 4 as an operand, queries 8n + 2 (lane % 4) + {0, 1} of results.
/// Query r is new token r / group, head r % group.
struct Queries {
  uint32_t q[8][2];  // B fragments in FP16, 16 channels each, the second half times kLowUnit / kHighUnit
  int visible[2];    // tokens that a query sees
  float scale[2];    // on q·K, to base-2 exponents
  float sum[2];      // of the query's channels
};

/// What a warp has seen so far, for 8 queries.
struct Running {
  float out[8][4];  // i: channels 16i + lane / 4 (0, 1) and + 8 (2, 3), of both queries; in kLowUnit or kHighUnit
  float zeros[4];   // Σ p·zero, in every row, in kLowUnit
  float largest[2], total[2];
};

/// The zero points of a block's values as operands of 16 tokens each.
template <ScaleFormat kFormat>
__device__ __forceinline__ void valueZeros(const Block& block, bool masked, int left, uint32_t (&zeros)[kKeys]) {
#pragma unroll
  for (int i = 0; i < kKeys; i++) {
    if constexpr (kFormat == ScaleFormat::kBf16Symmetric) {
      zeros[i] = 0x00080008u;
    } else {
      const int token = 8 * i + threadIdx.x % 4 * 2;
      const uint2 words = *reinterpret_cast<const uint2*>(&block.scales[token]);
      zeros[i] = words.x >> 24 | words.y >> 24 << 16;
      // What lies beyond the length may be anything.
      if (masked && token >= left) zeros[i] = 0;
      if (masked && token + 1 >= left) zeros[i] &= 0xffffu;
    }
  }
}

template <ScaleFormat kFormat, int kTiles>
__device__ __forceinline__ void attend(const Block& block, const Queries (&queries)[kTiles], int position, int length, bool masked,
                                       Running (&running)[kTiles]) {
  const int lane = threadIdx.x % 32;
  float score[kTiles][kKeys][2], t[kTiles][kKeys][2];
#pragma unroll
  for (int pair = 0; pair < kKeys / 2; pair++) {
    const uint4 first = block.keys[2 * pair][lane], second = block.keys[2 * pair + 1][lane];
    const uint32_t a[4] = {first.x, first.y, first.z, first.w}, b[4] = {second.x, second.y, second.z, second.w};
    float dot[kTiles][4] = {};
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        multiply(dot[n], codes<0>(a[s]), codes<0>(b[s]), codes<1>(a[s]), codes<1>(b[s]), queries[n].q[2 * s]);
        multiply(dot[n], codes<2>(a[s]), codes<2>(b[s]), codes<3>(a[s]), codes<3>(b[s]), queries[n].q[2 * s + 1]);
      }
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int i = 0; i < 4; i++) score[n][2 * pair + i / 2][i % 2] = dot[n][i];
  }
#pragma unroll
  for (int i = 0; i < kKeys; i++) {
    const int token = 8 * i + lane / 4;
    const TokenScale scale = unpackScale<kFormat>(block.scales[token]);
    const float log2Value = ptx::log2Fast(scale.value);
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        float& v = score[n][i][e];
        v = queries[n].scale[e] * scale.key * (v * (1 / kLowUnit) - scale.keyZero * queries[n].sum[e]);
        t[n][i][e] = v + log2Value;
        if (masked && position + token >= queries[n].visible[e]) v = t[n][i][e] = -kInfinity;
      }
  }

  uint32_t p[kTiles][kKeys];
#pragma unroll
  for (int n = 0; n < kTiles; n++) {
    Running& r = running[n];
    float base[2];
#pragma unroll
    for (int e = 0; e < 2; e++) {
      float largest = r.largest[e];
#pragma unroll
      for (int i = 0; i < kKeys; i++) largest = fmaxf(largest, t[n][i][e]);
#pragma unroll
      for (int other = 4; other < 32; other *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, other));
      base[e] = largest == -kInfinity ? 0.f : largest;
      if (__any_sync(~0u, largest > r.largest[e])) {
        const float shrink = ptx::exp2Fast(r.largest[e] - base[e]);
#pragma unroll
        for (int j = 0; j < 8; j++) r.out[j][e] *= shrink, r.out[j][2 + e] *= shrink;
        r.zeros[e] *= shrink;
        r.total[e] *= shrink;
        r.largest[e] = largest;
      }
    }
#pragma unroll
    for (int i = 0; i < kKeys; i++) {
      p[n][i] = transpose(ptx::exp2Fast(t[n][i][0] + (kLog2Numerator - base[0])), ptx::exp2Fast(t[n][i][1] + (kLog2Numerator - base[1])));
#pragma unroll
      for (int e = 0; e < 2; e++) r.total[e] += ptx::exp2Fast(score[n][i][e] - base[e]);
    }
  }

  uint32_t zeros[kKeys];
  valueZeros<kFormat>(block, masked, length - position, zeros);
#pragma unroll
  for (int half = 0; half < kKeys / 2; half++) {  // 16 tokens
    const uint4 first = block.value(2 * half), second = block.value(2 * half + 1);
    const uint32_t a[4] = {first.x, first.y, first.z, first.w}, b[4] = {second.x, second.y, second.z, second.w};
#pragma unroll
    for (int n = 0; n < kTiles; n++) {
      const uint32_t numerators[2] = {p[n][2 * half], p[n][2 * half + 1]};
      float(&out)[8][4] = running[n].out;
      multiply(running[n].zeros, zeros[2 * half], zeros[2 * half], zeros[2 * half + 1], zeros[2 * half + 1], numerators);
#pragma unroll
      for (int c = 0; c < 4; c += 2) {  // words c and c + 1: channels 8c + n and 8 more, and 32, 64, 96 beyond
        multiply(out[c / 2], codes<0>(a[c]), codes<0>(a[c + 1]), codes<0>(b[c]), codes<0>(b[c + 1]), numerators);
        multiply(out[c / 2 + 2], codes<1>(a[c]), codes<1>(a[c + 1]), codes<1>(b[c]), codes<1>(b[c + 1]), numerators);
        multiply(out[c / 2 + 4], codes<2>(a[c]), codes<2>(a[c + 1]), codes<2>(b[c]), codes<2>(b[c + 1]), numerators);
        multiply(out[c / 2 + 6], codes<3>(a[c]), codes<3>(a[c + 1]), codes<3>(b[c]), codes<3>(b[c + 1]), numerators);
      }
    }
  }
}

/// Where a query lies in q and out, in rows of 128 channels; the first one's if there is no such query.
struct QueryPlace {
  bool used;
  int token;
  size_t row;
  __device__ __forceinline__ QueryPlace(const AttentionDecodeParams& p, int sequence, int keyHead, int query) {
    const int group = p.queryHeads / p.keyHeads;
    used = query < group * p.newTokens;
    token = used ? query / group : 0;
    row = (static_cast<size_t>(sequence) * p.newTokens + token) * p.queryHeads + keyHead * group + (used ? query % group : 0);
  }
};

__device__ __forceinline__ Queries loadQueries(const AttentionDecodeParams& p, int sequence, int keyHead, int tile, int length) {
  Queries queries;
  const int lane = threadIdx.x % 32;
  const QueryPlace mine(p, sequence, keyHead, tile * 8 + lane / 4);
  float sum = 0.f;
#pragma unroll
  for (int s = 0; s < 8; s++)
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint8_t* from = p.q + mine.row * kHeadDim + 16 * s + 8 * half + lane % 4 * 2;
      uint32_t pair = e4m3ToHalves(mine.used ? *reinterpret_cast<const uint16_t*>(from) : 0);
      const float2 v = halvesToFloats(pair);
      sum += v.x + v.y;
      if (half == 1) asm("mul.f16x2 %0, %0, %1;" : "+r"(pair) : "r"(0x2c002c00u));  // 2⁻⁴ = kLowUnit / kHighUnit
      queries.q[s][half] = pair;
    }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
#pragma unroll
  for (int e = 0; e < 2; e++) {
    const int query = lane % 4 * 2 + e;
    const QueryPlace place(p, sequence, keyHead, tile * 8 + query);
    queries.visible[e] = place.used ? length - (p.newTokens - 1 - place.token) : 0;
    queries.scale[e] = place.used ? p.qScale[place.row] * p.softmaxScale * kLog2e : 0.f;
    queries.sum[e] = __shfl_sync(~0u, sum, query * 4);
  }
  return queries;
}

/// Sums of several sources (warps, or chunks), each 128 channels a query with its largest exponent and total. A warp takes
/// every kWarps-th query, a lane four channels of it. `factors` has room for one float a source and warp.
template <class Out, class Largest, class Total, class Store>
__device__ __forceinline__ void addUp(int queries, int sources, float* factors, const Out& outOf, const Largest& largestOf, const Total& totalOf,
                                      const Store& store) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float* const mine = factors + warp * sources;
  for (int query = warp; query < queries; query += kWarps) {
    float largest = -kInfinity, total = 0.f;
    for (int s = lane; s < sources; s += 32) largest = fmaxf(largest, largestOf(s, query));
#pragma unroll
    for (int other = 1; other < 32; other *= 2) largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, other));
    const float base = largest == -kInfinity ? 0.f : largest;
    for (int s = lane; s < sources; s += 32) {
      mine[s] = ptx::exp2Fast(largestOf(s, query) - base);
      total += mine[s] * totalOf(s, query);
    }
#pragma unroll
    for (int other = 1; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
    __syncwarp();
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
#pragma unroll 8
    for (int s = 0; s < sources; s++) {
      const float4 v = outOf(s, query);
      const float factor = mine[s];
      sum.x += v.x * factor, sum.y += v.y * factor, sum.z += v.z * factor, sum.w += v.w * factor;
    }
    __syncwarp();
    store(query, sum, largest, total);
  }
}

/// A warp's ring of pages, and then what it adds to its chunk.
union WarpShared {
  Block ring[kStages][kPageBlocks];
  struct {
    float out[kMaxQueries][kHeadDim + 4];
    float largest[kMaxQueries], total[kMaxQueries];
  } sums;
};

}  // namespace decode

/// grid: chunks (of the longest sequence), keyHeads, sequences; 128 threads; kTiles · 8 queries a key-value head at most.
template <ScaleFormat kFormat, int kTiles>
__device__ __forceinline__ void attentionDecode(const AttentionDecodeParams& p) {
  using namespace decode;
  extern __shared__ __align__(16) uint8_t raw[];
  auto* const shared = reinterpret_cast<WarpShared*>(raw);
  __shared__ bool last;
  const int chunk = blockIdx.x, keyHead = blockIdx.y, sequence = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int length = p.lengths[sequence], chunks = max(1, (length + p.chunkTokens - 1) / p.chunkTokens);
  if (chunk >= chunks) return;
  Queries queries[kTiles];
#pragma unroll
  for (int n = 0; n < kTiles; n++) queries[n] = loadQueries(p, sequence, keyHead, n, length);
  const int32_t* pages = p.pageTable + static_cast<size_t>(sequence) * p.pagesPerSequence;
  const int end = min(length, (chunk + 1) * p.chunkTokens), lastPage = (end + kPageTokens - 1) / kPageTokens;

  Running running[kTiles] = {};
#pragma unroll
  for (int n = 0; n < kTiles; n++) running[n].largest[0] = running[n].largest[1] = -kInfinity;
  auto& ring = shared[warp].ring;
  __shared__ uint64_t barriers[kWarps][kStages];
  const uint32_t full = ptx::smemAddress(barriers[warp]);
  if (lane == 0) {
    for (int i = 0; i < kStages; i++) ptx::barrierInit(full + i * 8, 1);
    ptx::barrierInitFence();
  }
  __syncwarp();
  // Where a page lies is known one page ahead: its load would hold up the copy.
  const auto placeOf = [&](int page) { return page < lastPage ? pages[page] : 0; };
  const auto fetch = [&](int page, int place, int stage) {
    if (lane != 0 || page >= lastPage) return;
    ptx::barrierArriveExpect(full + stage * 8, kKvPageBytes);
    ptx::copyBulk(ptx::smemAddress(&ring[stage]), p.cache + (static_cast<size_t>(place) * p.keyHeads + keyHead) * kKvPageBytes, kKvPageBytes,
                  full + stage * 8);
  };
  int page = chunk * p.chunkTokens / kPageTokens + warp, stage = 0, parity = 0;
#pragma unroll
  for (int i = 0; i < kStages; i++) fetch(page + i * kWarps, placeOf(page + i * kWarps), i);
  int nextPlace = placeOf(page + kStages * kWarps);
#pragma unroll 1
  for (; page < lastPage; page += kWarps) {
    ptx::barrierWait(full + stage * 8, parity);
#pragma unroll 1
    for (int half = 0; half < kPageBlocks; half++) {
      const int position = page * kPageTokens + half * kKvBlockTokens;
      if (position >= end) break;
      const bool masked = position + kKvBlockTokens + p.newTokens - 1 > length;
      attend<kFormat, kTiles>(ring[stage][half], queries, position, length, masked, running);
    }
    __syncwarp();
    fetch(page + kStages * kWarps, nextPlace, stage);
    nextPlace = placeOf(page + (kStages + 1) * kWarps);
    if (++stage == kStages) stage = 0, parity ^= 1;
  }

  auto& sums = shared[warp].sums;
#pragma unroll
  for (int n = 0; n < kTiles; n++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      const Running& r = running[n];
      const int query = n * 8 + lane % 4 * 2 + e;
      float total = r.total[e];
#pragma unroll
      for (int other = 4; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
      if (lane < 4) sums.largest[query] = r.largest[e], sums.total[query] = total;
#pragma unroll
      for (int j = 0; j < 8; j++) {
        const int channel = j * 16 + lane / 4;
        const float unit = j / 2 % 2 ? kLowUnit / kHighUnit : 1.f;
        sums.out[query][channel] = r.out[j][e] * unit - r.zeros[e];
        sums.out[query][channel + 8] = r.out[j][2 + e] * unit - r.zeros[e];
      }
    }
  __syncthreads();

  const int channel = lane * 4, count = p.queryHeads / p.keyHeads * p.newTokens;
  const auto finish = [&](int query, float4 sum, float, float total) {
    const float factor = total > 0.f ? 1 / (kLowUnit * (1 << 14)) / total : 0.f;
    const uint2 bits = make_uint2(ptx::packBf16(sum.x * factor, sum.y * factor), ptx::packBf16(sum.z * factor, sum.w * factor));
    *reinterpret_cast<uint2*>(p.out + QueryPlace(p, sequence, keyHead, query).row * kHeadDim + channel) = bits;
  };
  const auto warpOut = [&](int s, int query) { return *reinterpret_cast<const float4*>(&shared[s].sums.out[query][channel]); };
  const auto warpLargest = [&](int s, int query) { return shared[s].sums.largest[query]; };
  const auto warpTotal = [&](int s, int query) { return shared[s].sums.total[query]; };
  __shared__ float warpFactors[kWarps * kWarps];
  if (chunks == 1) {
    addUp(count, kWarps, warpFactors, warpOut, warpLargest, warpTotal, finish);
    return;
  }
  // Of each chunk: [queries][128] sums, [queries] largest exponents, [queries] totals.
  const size_t slot = static_cast<size_t>(sequence) * p.keyHeads + keyHead;
  float* const partial = p.partial + slot * gridDim.x * kPartialFloats;
  addUp(count, kWarps, warpFactors, warpOut, warpLargest, warpTotal, [&](int query, float4 sum, float largest, float total) {
    float* to = partial + chunk * kPartialFloats;
    __stcg(reinterpret_cast<float4*>(to + query * kHeadDim + channel), sum);
    to += kMaxQueries * kHeadDim + query;
    if (lane == 0) __stcg(to, largest), __stcg(to + kMaxQueries, total);
  });
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(p.arrived + slot, 1u) == static_cast<uint32_t>(chunks) - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) p.arrived[slot] = 0;
  const auto chunkOut = [&](int s, int query) {
    return __ldcg(reinterpret_cast<const float4*>(partial + s * kPartialFloats + query * kHeadDim + channel));
  };
  const auto chunkLargest = [&](int s, int query) { return __ldcg(partial + s * kPartialFloats + kMaxQueries * kHeadDim + query); };
  const auto chunkTotal = [&](int s, int query) { return __ldcg(partial + s * kPartialFloats + kMaxQueries * (kHeadDim + 1) + query); };
  // The warps' sums have been read: their room takes the factors.
  addUp(count, chunks, reinterpret_cast<float*>(raw), chunkOut, chunkLargest, chunkTotal, finish);
}

}  // namespace fireq
