// Attention of many new tokens a sequence (attention_prefill.cuh): the tiles it multiplies, and the kernel that makes them from pages of
// the INT4 cache. Each key-value head's tokens are decoded once, for all the queries that see them; the tiles mostly stay in the L2.
//
// A tile is 128 tokens. Codes become E4M3 by masks: keys stay unsigned (0…15 · 2⁻⁹), and one row of the query's sum takes their zero
// point away; values get their zero point taken away here, since a sum that only grows would lose bits in the tensor cores.
//
// Both are K-major with rows of 128 bytes, swizzled as wgmma reads them, in orders that cost the multiplying warps nothing:
// * keys[token][32l + 16h + 4s + b]: channel 8 (4s + 2 (b % 2) + h) + 2l + b / 2; queries are loaded in that order;
// * values[channel][32k + 16r + 4l + b]: token 32k + 8 (2r + b % 2) + 2l + b / 2: what a lane has of a row of scores lies together.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"

namespace fireq {

struct AttentionTilesParams {
  const uint8_t* cache;      // [pages, keyHeads, kKvPageBytes], with the new tokens
  const int32_t* pageTable;  // [sequences, pagesPerSequence]
  const int4* tiles;         // of each tile of 128 tokens: sequence, tile of the sequence, tokens of the sequence, 0
  uint8_t* out;              // [tiles, keyHeads] DecodedTile
  int keyHeads, pagesPerSequence;
};

namespace prefill {

constexpr int kKeys = 128, kTilePages = kKeys / kPageTokens;
constexpr float kUnit = 0x1p-9f;             // of codes as E4M3
constexpr float kSmallestScale = 0x1p-100f;  // of values: smaller σ count as this

struct alignas(128) DecodedTile {
  uint8_t keys[kKeys * kHeadDim];
  uint8_t values[kKeys * kHeadDim];
  // In the order of a lane's scores, [i / 2][l][i % 2, e] for token 8i + 2l + e: BF16 σ of the key (low half) and of the value.
  uint32_t scales[kKeys];
  float zeros[kKeys];  // zero points of the keys, likewise (asymmetric only)
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
  const int thread = threadIdx.x, l = thread % 4;
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
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = lane % 8, half = lane / 8 % 2, r = lane / 16;
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

/// A thread's token; `exists`: it is within the length. Others get scales of one: what lies beyond the length may be anything.
template <ScaleFormat kFormat>
__device__ __forceinline__ void writeScales(uint32_t raw, DecodedTile& tile, bool exists) {
  const int token = threadIdx.x, at = token / 16 * 16 + token % 8 / 2 * 4 + token / 8 % 2 * 2 + token % 2;
  const uint32_t word = loadShared4(raw + token / kKvBlockTokens * kKvBlockBytes + kKvScales + token % kKvBlockTokens * 4);
  uint32_t key = word << 16, value = word & 0xffff0000u;
  if constexpr (kFormat == ScaleFormat::kE4m3Asymmetric) {
    uint32_t halves;  // E4M3 σ of the key and of the value
    asm("{.reg .b16 b;\ncvt.u16.u32 b, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(permute(word, 0, 0x4420)));
    const float2 scales = ptx::unpackHalf(halves);
    key = __float_as_uint(scales.x), value = __float_as_uint(scales.y);
    tile.zeros[at] = exists ? static_cast<float>(word >> 8 & 0xff) : 0.f;
  }
  if (__uint_as_float(value) < kSmallestScale) value = __float_as_uint(kSmallestScale);
  tile.scales[at] = exists ? key >> 16 | value : 0x3f803f80u;
}

struct TilesShared {
  DecodedTile tile;
  alignas(128) uint8_t raw[kTilePages][kKvPageBytes];
  alignas(8) uint64_t full;
};

}  // namespace prefill

/// grid: tiles, keyHeads; 128 threads.
template <ScaleFormat kFormat>
__device__ __forceinline__ void attentionTiles(const AttentionTilesParams& p) {
  using namespace prefill;
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<TilesShared*>((reinterpret_cast<uintptr_t>(memory) + 1023) & ~uintptr_t{1023});
  const uint32_t full = ptx::smemAddress(&shared.full), raw = ptx::smemAddress(shared.raw);
  if (threadIdx.x == 0) {
    ptx::barrierInit(full, 1);
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::launchDependents();
  ptx::waitForPrevious();
  const int4 tile = p.tiles[blockIdx.x];
  const int left = tile.z - tile.y * kKeys;  // tokens from the tile's first on
  if (threadIdx.x == 0) {
    const int pages = min(kTilePages, (left + kPageTokens - 1) / kPageTokens);
    const int32_t* places = p.pageTable + static_cast<size_t>(tile.x) * p.pagesPerSequence + tile.y * kTilePages;
    ptx::barrierArriveExpect(full, pages * kKvPageBytes);
    for (int i = 0; i < pages; i++)
      ptx::copyBulk(raw + i * kKvPageBytes, p.cache + (static_cast<size_t>(places[i]) * p.keyHeads + blockIdx.y) * kKvPageBytes, kKvPageBytes, full);
  }
  ptx::barrierWait(full, 0);
  writeScales<kFormat>(raw, shared.tile, static_cast<int>(threadIdx.x) < left);
  decodeKeys(raw, ptx::smemAddress(shared.tile.keys));
  decodeValues<kFormat>(raw, ptx::smemAddress(shared.tile.values));
  ptx::fenceAsyncShared();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::storeBulk(p.out + (static_cast<size_t>(blockIdx.x) * p.keyHeads + blockIdx.y) * sizeof(DecodedTile), ptx::smemAddress(&shared.tile),
                   sizeof(DecodedTile));
    ptx::storeCommit();
    ptx::storeWait<0>();
  }
}

}  // namespace fireq
