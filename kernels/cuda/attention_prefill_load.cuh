// Attention of many new tokens a sequence (attention_prefill.cuh): what a block works on, and the warpgroup that turns pages of the
// INT4 cache into FP8 tiles in shared memory.
//
// A tile is 128 tokens. Codes become E4M3 by masks: keys stay unsigned (0…15 · 2⁻⁹), and one row of the query's sum takes their zero
// point away; values get their zero point taken away here, since a sum that only grows would lose bits in the tensor cores.
//
// Both tiles are K-major with rows of 128 bytes, in orders that cost the multiplying warps nothing:
// * keys[token][32l + 16h + 4s + b]: channel 8 (4s + 2 (b % 2) + h) + 2l + b / 2; queries are loaded in that order;
// * values[channel][32k + 16r + 4l + b]: token 32k + 8 (2r + b % 2) + 2l + b / 2: what a lane has of a row of scores lies together.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"
#include "ring.cuh"

namespace fireq {

struct AttentionPrefillParams {
  const uint8_t* q;          // E4M3 [tokens, queryHeads, 128]
  const float* qScale;       // [tokens, queryHeads]
  const uint8_t* cache;      // [pages, keyHeads, kKvPageBytes], with the new tokens
  const int32_t* pageTable;  // [sequences, pagesPerSequence]
  // Of each head, tiles of up to 128 new tokens of a sequence, those that see most first: the sequence, the first query's row in q as
  // [tokens · queryHeads, 128], queries, and how many tokens of the sequence the first one sees (the next one sees one more, and so on).
  const int4* tiles;
  uint16_t* out;             // BF16 [tokens, queryHeads, 128]
  int tileCount, queryHeads, keyHeads, pagesPerSequence;
  float softmaxScale;
};

namespace prefill {

constexpr int kQueries = 128, kKeys = 128, kTilePages = kKeys / kPageTokens;
constexpr int kRawStages = 3;
constexpr float kLog2e = 1.4426950408889634f, kInfinity = __builtin_huge_valf();
constexpr float kUnit = 0x1p-9f;  // of codes as E4M3
constexpr float kSmallestScale = 0x1p-100f;  // of values: smaller σ count as this

/// A block's tiles: back and forth through the grid, so that all blocks get as much. With kAhead the next tile
/// is known before it is wanted.
template <bool kAhead>
struct Walk {
  const AttentionPrefillParams& p;
  int step = 0;
  int4 tile, upcoming;

  __device__ __forceinline__ explicit Walk(const AttentionPrefillParams& params) : p(params), tile(load(0)) {
    if (kAhead) upcoming = load(1);
  }
  __device__ __forceinline__ int index(int at) const { return at * gridDim.x + (at % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }
  __device__ __forceinline__ bool exists(int at) const { return index(at) < p.tileCount; }
  __device__ __forceinline__ bool done() const { return !exists(step); }
  __device__ __forceinline__ int4 load(int at) const { return exists(at) ? __ldg(p.tiles + index(at)) : int4{}; }
  __device__ __forceinline__ void next() {
    step++;
    tile = kAhead ? upcoming : load(step);
    if (kAhead) upcoming = load(step + 1);
  }
  __device__ __forceinline__ int length() const { return tile.w + tile.z - 1; }  // tokens that the last query sees
  __device__ __forceinline__ int keyTiles() const { return (length() + kKeys - 1) / kKeys; }
};

/// What the softmax must know of a tile's tokens, in the order of a lane's scores: tokens 8i + 2l + {0, 1}.
struct Columns {
  float4 score[kKeys / 8][4];    // [i][l]: two factors on the product (0 beyond the length), two log₂ σ of values (−∞ beyond it)
  float4 weight[kKeys / 16][4];  // [i / 2][l]: 1 / σ of values, of two i
  float4 zero[kKeys / 16][4];    // likewise the keys' zero points times their factors; asymmetric only
};

template <class C>
struct Shared {
  alignas(1024) uint8_t keys[C::kStages][kKeys * kHeadDim];
  alignas(1024) uint8_t values[C::kStages][kKeys * kHeadDim];
  alignas(1024) uint8_t ones[8 * kHeadDim];  // eight rows that sum up a query
  alignas(128) uint8_t raw[kRawStages][kTilePages * kKvPageBytes];
  Columns columns[2][C::kStages];  // by parity too: a tile of keys is released before its softmax is done
  int2 source[kRawStages];  // of raw: the tile's first token and the length of what it belongs to; nothing left: 0, 0
  alignas(8) uint64_t rawFull[kRawStages], rawEmpty[kRawStages];
  alignas(8) uint64_t keysFull[C::kStages], keysEmpty[C::kStages], valuesFull[C::kStages], valuesEmpty[C::kStages];
};

__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t v;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(selector));
  return v;
}

/// Four bytes v + 128, |v| ≤ 15 → E4M3 of v · 2⁻⁹. kMask: bits of the magnitude.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t signedE4m3(uint32_t biased, uint32_t signs) {
  const uint32_t positive = permute(signs, 0, 0xba98);  // each byte's highest bit, eight times
  return ((biased ^ ~positive) & kMask) + (~positive & 0x81818181u);
}

/// Codes less their zero points, of the low or high nibbles of a word, as E4M3. zeros: a byte each (asymmetric only).
template <ScaleFormat kFormat, bool kHigh>
__device__ __forceinline__ uint32_t centered(uint32_t word, uint32_t zeros) {
  const uint32_t aligned = kHigh ? word >> 4 : word;
  if constexpr (kFormat == ScaleFormat::kBf16Symmetric) {
    return signedE4m3<0x07070707u>(aligned, kHigh ? word : word << 4);  // the zero point is 8: a code's highest bit is its sign
  } else {
    const uint32_t biased = (aligned & 0x0f0f0f0fu | 0x80808080u) - zeros;
    return signedE4m3<0x7f7f7f7fu>(biased, biased);
  }
}

__device__ __forceinline__ void storeShared16(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a), "r"(b), "r"(c), "r"(d) : "memory");
}

__device__ __forceinline__ uint32_t loadShared4(uint32_t address) {
  uint32_t v;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}

/// Where 16 bytes of a row lie in a tile with 128-byte swizzle.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * 128 + (chunk ^ row % 8) * 16; }

__device__ __forceinline__ void decodeKeys(uint32_t raw, uint32_t tile) {
  const int thread = threadIdx.x % 128, l = thread % 4;
  const uint32_t low = tile + swizzled(thread / 4, 2 * l), high = tile + swizzled(thread / 4, 2 * l + 1);
#pragma unroll
  for (int block = 0; block < kKeys / kKvBlockTokens; block++) {
    const uint4 w = ptx::loadShared16(raw + block * kKvBlockBytes + thread * 16);
    constexpr uint32_t kLow = 0x0f0f0f0fu, kRows = kKvBlockTokens * 128;
    storeShared16(low + block * kRows, w.x & kLow, w.y & kLow, w.z & kLow, w.w & kLow);
    storeShared16(high + block * kRows, w.x >> 4 & kLow, w.y >> 4 & kLow, w.z >> 4 & kLow, w.w >> 4 & kLow);
  }
}

/// Zero points of the values of tokens 8 (2r + b % 2) + 2l + b / 2, byte b. scales: of a block.
__device__ __forceinline__ uint32_t valueZeros(uint32_t scales, int r, int l) {
  const uint2 a = ptx::loadShared8(scales + (16 * r + 2 * l) * 4), b = ptx::loadShared8(scales + (16 * r + 8 + 2 * l) * 4);
  return permute(permute(a.x, b.x, 0x0073), permute(a.y, b.y, 0x0073), 0x5410) & 0x0f0f0f0fu;
}

/// A warp takes a block of 32 tokens; a lane 16 of them, and channels n + 32j of two c, one after the other: first that in which
/// the lanes of the other tokens read other banks.
template <ScaleFormat kFormat>
__device__ __forceinline__ void decodeValues(uint32_t raw, uint32_t tile) {
  const int warp = threadIdx.x % 128 / 32, lane = threadIdx.x % 32, n = lane % 8, half = lane / 8 % 2, r = lane / 16;
  const uint32_t block = raw + warp * kKvBlockBytes;
  uint32_t zeros[4] = {};
  if constexpr (kFormat == ScaleFormat::kE4m3Asymmetric)
#pragma unroll
    for (int l = 0; l < 4; l++) zeros[l] = valueZeros(block + kKvScales, r, l);
#pragma unroll 1
  for (int turn = 0; turn < 2; turn++) {
    const int c = 2 * half + (turn ^ r);
    const uint32_t from = block + kKvValues + r * 1024 + c * 4, to = tile + swizzled(8 * c + n, 2 * warp + r);
    uint32_t first[4], second[4];  // tokens 16r + 2l + {0, 1}, and 8 more
#pragma unroll
    for (int l = 0; l < 4; l++) first[l] = loadShared4(from + l * 128 + (n ^ 2 * l) * 16), second[l] = loadShared4(from + 512 + l * 128 + (n ^ 2 * l) * 16);
#pragma unroll
    for (int pair = 0; pair < 2; pair++) {  // j = 2 · pair, and one more
      uint32_t even[4], odd[4];
#pragma unroll
      for (int l = 0; l < 4; l++) {
        const uint32_t bytes = permute(first[l], second[l], pair ? 0x7351 : 0x6240);
        even[l] = centered<kFormat, false>(bytes, zeros[l]), odd[l] = centered<kFormat, true>(bytes, zeros[l]);
      }
      storeShared16(to + pair * 8192, even[0], even[1], even[2], even[3]);
      storeShared16(to + pair * 8192 + 4096, odd[0], odd[1], odd[2], odd[3]);
    }
  }
}

/// A thread's token of the columns; `exists`: the token is within the length.
template <ScaleFormat kFormat>
__device__ __forceinline__ void describeColumn(uint32_t raw, Columns& columns, bool exists, float softmaxScale) {
  const int token = threadIdx.x % 128, i = token / 8, l = token % 8 / 2, e = token % 2;
  const uint32_t word = loadShared4(raw + token / kKvBlockTokens * kKvBlockBytes + kKvScales + token % kKvBlockTokens * 4);
  float key, value, zero = 0.f;
  if constexpr (kFormat == ScaleFormat::kBf16Symmetric) {
    key = __uint_as_float(word << 16), value = __uint_as_float(word & 0xffff0000u);
  } else {
    uint32_t halves;  // E4M3 σ of the key and of the value
    asm("{.reg .b16 b;\ncvt.u16.u32 b, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(permute(word, 0, 0x4420)));
    const float2 scales = ptx::unpackHalf(halves);
    key = scales.x, value = scales.y, zero = static_cast<float>(word >> 8 & 0xff);
  }
  if (value < kSmallestScale) value = kSmallestScale;
  const float factor = exists ? key * softmaxScale * (kLog2e / kUnit) : 0.f;
  float* const score = reinterpret_cast<float*>(&columns.score[i][l]);
  score[e] = factor, score[2 + e] = exists ? __log2f(value) : -kInfinity;
  reinterpret_cast<float*>(&columns.weight[i / 2][l])[i % 2 * 2 + e] = exists ? __fdividef(1.f, value) : 0.f;
  if constexpr (kFormat == ScaleFormat::kE4m3Asymmetric) reinterpret_cast<float*>(&columns.zero[i / 2][l])[i % 2 * 2 + e] = exists ? factor * zero : 0.f;
}

/// One thread's pages on their way to shared memory: of each tile that of its warp.
struct PageFetch {
  Walk<false> walk;
  int tile, keyHead, place = 0;
  Ring<kRawStages> ring;

  __device__ __forceinline__ explicit PageFetch(const AttentionPrefillParams& p) : walk(p) { start(); }
  __device__ __forceinline__ static int part() { return threadIdx.x / 32 % 4; }
  __device__ __forceinline__ void start() {
    tile = walk.keyTiles() - 1, keyHead = walk.tile.y % walk.p.queryHeads / (walk.p.queryHeads / walk.p.keyHeads);
    locate();
  }
  __device__ __forceinline__ bool exists() const { return (tile * kTilePages + part()) * kPageTokens < walk.length(); }
  // Known one page ahead: its load would hold up the copy.
  __device__ __forceinline__ void locate() {
    if (!walk.done() && exists()) place = __ldg(walk.p.pageTable + static_cast<size_t>(walk.tile.x) * walk.p.pagesPerSequence + tile * kTilePages + part());
  }
  /// The stage must be free.
  template <class C>
  __device__ __forceinline__ void fetch(Shared<C>& shared) {
    const bool more = !walk.done();
    const uint32_t full = ptx::smemAddress(shared.rawFull) + ring.stage * 8;
    if (part() == 0) shared.source[ring.stage] = more ? make_int2(tile * kKeys, walk.length()) : int2{};
    if (more && exists()) {
      ptx::barrierArriveExpect(full, kKvPageBytes);
      ptx::copyBulk(ptx::smemAddress(shared.raw[ring.stage]) + part() * kKvPageBytes,
                    walk.p.cache + (static_cast<size_t>(place) * walk.p.keyHeads + keyHead) * kKvPageBytes, kKvPageBytes, full);
    } else {
      ptx::barrierArrive(full);
    }
    ring.advance();
    if (!more) return;
    if (--tile >= 0) return locate();
    walk.next();
    start();
  }
};

/// The warpgroup that loads and decodes.
template <class C>
__device__ __forceinline__ void loadTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const int thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
  const bool fetches = lane == 0 && warp < kTilePages;
  const uint32_t rawFull = ptx::smemAddress(shared.rawFull), rawEmpty = ptx::smemAddress(shared.rawEmpty);
  PageFetch pages(p);
  if (fetches)
    for (int i = 0; i < kRawStages - 1; i++) pages.fetch(shared);
  Ring<kRawStages> from;
  Ring<C::kStages> to;
#pragma unroll 1
  for (;; from.advance(), to.advance()) {
    ptx::barrierWait(rawFull + from.stage * 8, from.parity);
    const int2 source = shared.source[from.stage];
    if (source.y == 0) return;
    const uint32_t raw = ptx::smemAddress(shared.raw[from.stage]);
    ptx::barrierWait(ptx::smemAddress(shared.keysEmpty) + to.stage * 8, to.parity ^ 1);
    describeColumn<C::kFormat>(raw, shared.columns[to.parity][to.stage], source.x + thread < source.y, p.softmaxScale);
    decodeKeys(raw, ptx::smemAddress(shared.keys[to.stage]));
    ptx::fenceAsyncShared();
    __syncwarp();
    if (lane == 0) ptx::barrierArrive(ptx::smemAddress(shared.keysFull) + to.stage * 8);
    // The stage of the tile before has been read by now, or will be soon.
    if (fetches) {
      ptx::barrierWait(rawEmpty + pages.ring.stage * 8, pages.ring.parity ^ 1);
      pages.fetch(shared);
    }
    ptx::barrierWait(ptx::smemAddress(shared.valuesEmpty) + to.stage * 8, to.parity ^ 1);
    decodeValues<C::kFormat>(raw, ptx::smemAddress(shared.values[to.stage]));
    ptx::fenceAsyncShared();
    __syncwarp();
    if (lane == 0) {
      ptx::barrierArrive(ptx::smemAddress(shared.valuesFull) + to.stage * 8);
      ptx::barrierArrive(rawEmpty + from.stage * 8);
    }
  }
}

}  // namespace prefill
}  // namespace fireq
