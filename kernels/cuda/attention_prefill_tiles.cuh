// Attention of many new tokens a sequence (attention_prefill.cuh): the tiles it multiplies, and the kernel that makes them from pages of
// the cache. Each key-value head's tokens are decoded once, for all the queries that see them; the tiles mostly stay in the L2.
//
// A tile is 128 tokens. INT4 codes less their zero points are whole numbers from −15 to 15, exact in E4M3 as parts of 2⁹, made by masks.
// E4M3 keys become parts of 2⁹, too (FP16 couldn't hold the sums of larger ones): what is below 2⁻⁶ then loses bits, a vector's
// elements below a 56th of its largest. Scales become FP16 parts of a power of two, the tile's unit.
//
// Both are K-major with rows of 128 bytes, swizzled as wgmma reads them, in orders that cost the multiplying warps nothing:
// * keys[token][32l + 16h + 4s + b] (heads of 64: [16l + 8h + 4s + b], half a row): channel 8 (4s + 2 (b % 2) + h) + 2l + b / 2; queries
//   are loaded in that order;
// * values[channel][32k + 16r + 4l + b]: token 32k + 8 (2r + b / 2) + 2l + b % 2: what a lane has of a row of scores lies together.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"

namespace fireq {

struct AttentionTilesParams {
  const uint8_t* cache;      // [pages, keyHeads, kPageBytes], with the new tokens
  const int32_t* pageTable;  // [sequences, pagesPerSequence]
  const int4* tiles;         // of each tile of 128 tokens: sequence, tile of the sequence, tokens of the sequence, the first new one
  uint8_t* out;              // [tiles, keyHeads] DecodedTile
  int keyHeads, pagesPerSequence;
};

/// New tokens come from another cache, an E4M3 one.
struct AttentionChunkTilesParams {
  AttentionTilesParams of;
  const uint8_t* chunk;           // [pages, keyHeads, its kPageBytes]
  const int32_t* chunkPageTable;  // [sequences, pagesPerSequence], by the same tokens as pageTable
};

namespace prefill {

constexpr int kKeys = 128, kTilePages = kKeys / kPageTokens;
constexpr int kKeyRow = 128;  // bytes a token
constexpr float kUnit = 0x1p-9f;  // of codes as E4M3

/// A tile's scales, in the order of a lane's scores. i, l, e: token 8i + 2l + e; a word has those of e = 0 and 1.
struct alignas(128) TileScales {
  uint32_t pairs[kKeys / 16][4][2][2];  // [i / 2][l][key, value][i % 2]: FP16 σ / unit, 2⁻²⁴ … 1
  uint32_t logs[kKeys / 32][4][4];      // [i / 4][l][i % 4]: FP16 log₂ of the values', −5 at least
  float4 units[4];                      // for each l: of the keys, log₂ of the values', 1 / the values', 0
};

template <int kHeadDim>
struct alignas(128) DecodedTile {
  uint8_t keys[kKeys * kKeyRow];
  uint8_t values[kHeadDim * kKeys];
  TileScales scales;
};

/// Four bytes v + 128, |v| ≤ 15 → E4M3 of v · 2⁻⁹. kMask: bits of the magnitude.
template <uint32_t kMask>
__device__ __forceinline__ uint32_t signedE4m3(uint32_t biased, uint32_t signs) {
  const uint32_t positive = ptx::permute(signs, 0, 0xba98);  // each byte's highest bit, eight times
  return ((biased ^ ~positive) & kMask) + (~positive & 0x81818181u);
}

/// Codes less their zero points, of the low or high nibbles of a word, as E4M3. zeros: a byte each (asymmetric only).
template <KvFormat kFormat, bool kHigh>
__device__ __forceinline__ uint32_t centered(uint32_t word, uint32_t zeros) {
  const uint32_t aligned = kHigh ? word >> 4 : word;
  if constexpr (kFormat == KvFormat::kInt4Symmetric) {
    return signedE4m3<0x07070707u>(aligned, kHigh ? word : word << 4);  // the zero point is 8: a code's highest bit is its sign
  } else {
    const uint32_t biased = (aligned & 0x0f0f0f0fu | 0x80808080u) - zeros;
    return signedE4m3<0x7f7f7f7fu>(biased, biased);
  }
}

/// Where 16 bytes of a row lie in a tile with 128-byte swizzle.
__device__ __forceinline__ uint32_t swizzled(int row, int chunk) { return row * 128 + (chunk ^ row % 8) * 16; }

/// Elements 8 (4s + 2 (b % 2) + h) + 2l + b / 2 of a vector, byte b; w: its words.
template <int kHeadDim>
__device__ __forceinline__ uint32_t inKeyOrder(const uint32_t (&w)[kHeadDim / 4], int l, int h, int s) {
  return ptx::permute(w[8 * s + 2 * h + l / 2], w[8 * s + 4 + 2 * h + l / 2], l % 2 ? 0x7362 : 0x5140);
}

/// Four E4M3 numbers · 2⁻⁹, rounded.
__device__ __forceinline__ uint32_t inUnits(uint32_t bytes) {
  constexpr uint32_t kUnits = 0x18001800u;  // FP16
  return ptx::halvesToE4m3(ptx::multiplyHalvesRounded(ptx::e4m3ToHalves(bytes), kUnits), ptx::multiplyHalvesRounded(ptx::e4m3ToHalves<true>(bytes), kUnits));
}

/// Keys of the pages at `raw`. INT4: a thread takes a token of each block, and a quarter of its channels; E4M3: a token, from the tile's
/// `first` on.
template <class Layout>
__device__ __forceinline__ void decodeKeys(uint32_t raw, uint32_t tile, int first = 0) {
  constexpr KvFormat kFormat = Layout::kFormat;
  constexpr int kHeadDim = Layout::kHeadDim;
  const int thread = threadIdx.x;
  if constexpr (kFormat == KvFormat::kE4m3) {
    if (thread < first) return;
    uint32_t w[kHeadDim / 4];
    const uint32_t from = raw + thread / kKvBlockTokens * Layout::kBlockBytes + thread % kKvBlockTokens * 64;
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; i++) {
      const uint4 v = ptx::loadShared16(from + i / 4 * kKvBlockTokens * 64 + i % 4 * 16);
      w[4 * i] = inUnits(v.x), w[4 * i + 1] = inUnits(v.y), w[4 * i + 2] = inUnits(v.z), w[4 * i + 3] = inUnits(v.w);
    }
#pragma unroll
    for (int l = 0; l < 4; l++) {
      if constexpr (kHeadDim == 128) {
#pragma unroll
        for (int h = 0; h < 2; h++)
          ptx::storeShared16(tile + swizzled(thread, 2 * l + h), inKeyOrder<kHeadDim>(w, l, h, 0), inKeyOrder<kHeadDim>(w, l, h, 1), inKeyOrder<kHeadDim>(w, l, h, 2),
                        inKeyOrder<kHeadDim>(w, l, h, 3));
      } else {
        ptx::storeShared16(tile + swizzled(thread, l), inKeyOrder<kHeadDim>(w, l, 0, 0), inKeyOrder<kHeadDim>(w, l, 0, 1), inKeyOrder<kHeadDim>(w, l, 1, 0),
                      inKeyOrder<kHeadDim>(w, l, 1, 1));
      }
    }
  } else {
    const int l = thread % 4;
#pragma unroll
    for (int block = 0; block < kKeys / kKvBlockTokens; block++) {
      const uint32_t from = raw + block * Layout::kBlockBytes, row = tile + block * kKvBlockTokens * kKeyRow;
      uint32_t zeros = 0;
      if constexpr (kFormat == KvFormat::kInt4Asymmetric) zeros = ptx::permute(ptx::loadShared4(from + Layout::kScales + thread / 4 * 4), 0, 0x1111) & 0x0f0f0f0fu;
      if constexpr (kHeadDim == 128) {
        const uint4 w = ptx::loadShared16(from + thread * 16);
        ptx::storeShared16(row + swizzled(thread / 4, 2 * l), centered<kFormat, false>(w.x, zeros), centered<kFormat, false>(w.y, zeros),
                      centered<kFormat, false>(w.z, zeros), centered<kFormat, false>(w.w, zeros));
        ptx::storeShared16(row + swizzled(thread / 4, 2 * l + 1), centered<kFormat, true>(w.x, zeros), centered<kFormat, true>(w.y, zeros),
                      centered<kFormat, true>(w.z, zeros), centered<kFormat, true>(w.w, zeros));
      } else {
        const uint2 w = ptx::loadShared8(from + thread * 8);
        ptx::storeShared16(row + swizzled(thread / 4, l), centered<kFormat, false>(w.x, zeros), centered<kFormat, false>(w.y, zeros),
                      centered<kFormat, true>(w.x, zeros), centered<kFormat, true>(w.y, zeros));
      }
    }
  }
}

/// Zero points of the values of tokens 8 (2r + b / 2) + 2l + b % 2, byte b. scales: of a block.
__device__ __forceinline__ uint32_t valueZeros(uint32_t scales, int r, int l) {
  const uint2 a = ptx::loadShared8(scales + (16 * r + 2 * l) * 4), b = ptx::loadShared8(scales + (16 * r + 8 + 2 * l) * 4);
  return ptx::permute(ptx::permute(a.x, a.y, 0x0073), ptx::permute(b.x, b.y, 0x0073), 0x5410) & 0x0f0f0f0fu;
}

/// Bytes of tokens first + {0, 1, 8, 9} that are below `left`.
__device__ __forceinline__ uint32_t existing(int first, int left) {
  return (first < left ? 0xffu : 0) | (first + 1 < left ? 0xff00u : 0) | (first + 8 < left ? 0xff0000u : 0) | (first + 9 < left ? 0xff000000u : 0);
}

/// Values of the pages at `raw`: a warp takes a block of 32 tokens. INT4: a lane has 16 of them, and channels n + headDim / 4 · j of one c
/// after the other: first that in which the lanes of the other tokens read other banks. E4M3: a lane has two channels; those of tokens
/// from `left` on, which may be NaN, become 0. With kOver those before `from` stay what they are in the tile, and the others become
/// parts of 2⁹, too: their scales have to go with INT4 codes' in one FP16 range.
template <class Layout, bool kOver = false>
__device__ __forceinline__ void decodeValues(uint32_t raw, uint32_t tile, int left, int from = 0) {
  constexpr KvFormat kFormat = Layout::kFormat;
  constexpr int kHeadDim = Layout::kHeadDim;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, n = lane % 8;
  const uint32_t block = raw + warp * Layout::kBlockBytes;
  if constexpr (kFormat == KvFormat::kE4m3) {
    const int c = lane / 8;
#pragma unroll
    for (int part = 0; part < kHeadDim / 32; part++) {  // (r, 64 channels)
      const int r = part % 2, channels = part / 2;
      uint32_t first[4], second[4];
#pragma unroll
      for (int l = 0; l < 4; l++) {
        const uint32_t at = block + Layout::kValues + (((2 * r * (kHeadDim / 64) + channels) * 4 + l) * 8 + (n ^ 2 * l)) * 16 + c * 4;
        first[l] = ptx::loadShared4(at), second[l] = ptx::loadShared4(at + kHeadDim / 64 * 512);
      }
#pragma unroll
      for (int j = 0; j < 2; j++) {
        uint32_t v[4];
        const uint32_t to = tile + swizzled(64 * channels + 32 * j + 8 * c + n, 2 * warp + r);
#pragma unroll
        for (int l = 0; l < 4; l++) {
          const int token = 32 * warp + 16 * r + 2 * l;
          const uint32_t codes = ptx::permute(first[l], second[l], j ? 0x7632 : 0x5410);
          v[l] = (kOver ? inUnits(codes) : codes) & existing(token, left);
          if constexpr (kOver) {
            const uint32_t kept = existing(token, from);
            v[l] = (ptx::loadShared4(to + 4 * l) & kept) | (v[l] & ~kept);
          }
        }
        ptx::storeShared16(to, v[0], v[1], v[2], v[3]);
      }
    }
  } else {
    constexpr int kTurns = kHeadDim / 64, kWords = kHeadDim / 32, kNext = kHeadDim / 4 * 128;  // words of an n; from j to the next
    const int half = lane / 8 % 2, r = lane / 16;
    uint32_t zeros[4] = {};
    if constexpr (kFormat == KvFormat::kInt4Asymmetric)
#pragma unroll
      for (int l = 0; l < 4; l++) zeros[l] = valueZeros(block + Layout::kScales, r, l);
#pragma unroll 1
    for (int turn = 0; turn < kTurns; turn++) {
      const int c = kTurns == 2 ? 2 * half + (turn ^ r) : half;
      const uint32_t from = block + Layout::kValues + r * (2 * 32 * kWords * 4) + c * 4, to = tile + swizzled(8 * c + n, 2 * warp + r);
      uint32_t first[4], second[4];  // tokens 16r + 2l + {0, 1}, and 8 more
#pragma unroll
      for (int l = 0; l < 4; l++) {
        const uint32_t at = from + l * (8 * kWords * 4) + (n ^ 2 * l) * (kWords * 4);
        first[l] = ptx::loadShared4(at), second[l] = ptx::loadShared4(at + 32 * kWords * 4);
      }
#pragma unroll
      for (int pair = 0; pair < 2; pair++) {  // j = 2 · pair, and one more
        uint32_t even[4], odd[4];
#pragma unroll
        for (int l = 0; l < 4; l++) {
          const uint32_t bytes = ptx::permute(first[l], second[l], pair ? 0x7531 : 0x6420);
          even[l] = centered<kFormat, false>(bytes, zeros[l]), odd[l] = centered<kFormat, true>(bytes, zeros[l]);
        }
        ptx::storeShared16(to + pair * 2 * kNext, even[0], even[1], even[2], even[3]);
        ptx::storeShared16(to + (pair * 2 + 1) * kNext, odd[0], odd[1], odd[2], odd[3]);
      }
    }
  }
}

/// σ of a thread's token: of its key and of its value, as codes in units of 2⁻⁹ want them.
template <class Layout, bool kOver = false>
__device__ __forceinline__ float2 scalesOf(uint32_t raw, int token) {
  const uint32_t word = ptx::loadShared4(raw + token / kKvBlockTokens * Layout::kBlockBytes + Layout::kScales + token % kKvBlockTokens * 4);
  if constexpr (Layout::kFormat == KvFormat::kInt4Asymmetric) {
    return ptx::unpackHalf(ptx::e4m3ToHalves(ptx::permute(word, 0, 0x4420)));
  } else {
    const float value = __uint_as_float(word & 0xffff0000u);
    return {__uint_as_float(word << 16), Layout::kFormat == KvFormat::kE4m3 && !kOver ? value * kUnit : value};  // E4M3 values stay as they are
  }
}

/// The least power of two that is no less than σ, all threads' (0 and what isn't finite don't count; 1 if nothing does).
__device__ __forceinline__ float unitOf(float scale, uint32_t (&most)[4]) {
  const uint32_t bits = scale < __builtin_huge_valf() ? __float_as_uint(fmaxf(scale, 0.f)) : 0;
  const uint32_t warp = __reduce_max_sync(~0u, bits);
  if (threadIdx.x % 32 == 0) most[threadIdx.x / 32] = warp;
  __syncthreads();
  const uint32_t all = max(max(most[0], most[1]), max(most[2], most[3]));
  if (all == 0) return 1.f;
  return __uint_as_float(min((all + 0x7fffff) & 0x7f800000u, 0x7e800000u));  // 2¹²⁶ at most, to have a reciprocal
}

template <class Layout>
struct TilesShared {
  DecodedTile<Layout::kHeadDim> tile;
  alignas(128) uint8_t raw[kTilePages][Layout::kPageBytes];
  uint32_t most[2][4];
  alignas(8) uint64_t full;
};

template <class Layout, class Chunk>
struct ChunkTilesShared : TilesShared<Layout> {
  alignas(128) uint8_t chunk[kTilePages][Chunk::kPageBytes];
};

/// A thread's token; `exists`: it is within the length. Others get scales of one: what lies beyond the length may be anything.
template <class Layout>
__device__ __forceinline__ void writeScales(TilesShared<Layout>& shared, float2 scales, bool exists) {
  const int token = threadIdx.x, i = token / 8, l = token % 8 / 2, e = token % 2;
  const float keyUnit = unitOf(exists ? scales.x : 0.f, shared.most[0]), valueUnit = unitOf(exists ? scales.y : 0.f, shared.most[1]);
  const auto part = [&](float scale, float unit) {
    const float v = scale * __fdividef(1.f, unit);
    return exists ? (v < 0x1p-24f ? 0x1p-24f : v) : 1.f;  // NaN stays
  };
  const float key = part(scales.x, keyUnit), value = part(scales.y, valueUnit);
  auto& to = shared.tile.scales;
  reinterpret_cast<uint16_t*>(&to.pairs[i / 2][l][0][i % 2])[e] = static_cast<uint16_t>(ptx::packHalf(key, 0.f));
  reinterpret_cast<uint16_t*>(&to.pairs[i / 2][l][1][i % 2])[e] = static_cast<uint16_t>(ptx::packHalf(value, 0.f));
  reinterpret_cast<uint16_t*>(&to.logs[i / 4][l][i % 4])[e] = static_cast<uint16_t>(ptx::packHalf(fmaxf(ptx::log2Fast(value), -5.f), 0.f));
  if (token < 4) to.units[token] = {keyUnit, ptx::log2Fast(valueUnit), 1.f / valueUnit, 0.f};
}

/// What a block begins with. → its tile: sequence, tile of the sequence, tokens of the sequence, the first new one.
__device__ __forceinline__ int4 beginTile(const AttentionTilesParams& p, uint32_t full) {
  if (threadIdx.x == 0) {
    ptx::barrierInit(full, 1);
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::launchDependents();
  ptx::waitForPrevious();
  return p.tiles[blockIdx.x];
}

/// And ends with.
template <int kHeadDim>
__device__ __forceinline__ void storeTile(const AttentionTilesParams& p, const DecodedTile<kHeadDim>& tile) {
  ptx::fenceAsyncShared();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::storeBulk(p.out + (static_cast<size_t>(blockIdx.x) * p.keyHeads + blockIdx.y) * sizeof(tile), ptx::smemAddress(&tile), sizeof(tile));
    ptx::storeCommit();
    ptx::storeWait<0>();
  }
}

}  // namespace prefill

/// grid: tiles, keyHeads; 128 threads.
template <class Layout>
__device__ __forceinline__ void attentionTiles(const AttentionTilesParams& p) {
  using namespace prefill;
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<TilesShared<Layout>*>((reinterpret_cast<uintptr_t>(memory) + 1023) & ~uintptr_t{1023});
  const uint32_t full = ptx::smemAddress(&shared.full), raw = ptx::smemAddress(shared.raw);
  const int4 tile = beginTile(p, full);
  const int left = tile.z - tile.y * kKeys;  // tokens from the tile's first on
  if (threadIdx.x == 0) {
    const int pages = min(kTilePages, (left + kPageTokens - 1) / kPageTokens);
    const int32_t* places = p.pageTable + static_cast<size_t>(tile.x) * p.pagesPerSequence + tile.y * kTilePages;
    ptx::barrierArriveExpect(full, pages * Layout::kPageBytes);
    for (int i = 0; i < pages; i++)
      ptx::copyBulk(raw + i * Layout::kPageBytes, p.cache + (static_cast<size_t>(places[i]) * p.keyHeads + blockIdx.y) * Layout::kPageBytes, Layout::kPageBytes, full);
  }
  ptx::barrierWait(full, 0);
  writeScales(shared, scalesOf<Layout>(raw, threadIdx.x), static_cast<int>(threadIdx.x) < left);
  decodeKeys<Layout>(raw, ptx::smemAddress(shared.tile.keys));
  decodeValues<Layout>(raw, ptx::smemAddress(shared.tile.values), left);
  storeTile(p, shared.tile);
}

/// The same, with new tokens from the chunk's cache, which has the layout Chunk.
template <class Layout, class Chunk>
__device__ __forceinline__ void attentionChunkTiles(const AttentionChunkTilesParams& c) {
  using namespace prefill;
  static_assert(Chunk::kFormat == KvFormat::kE4m3 && Chunk::kHeadDim == Layout::kHeadDim);
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<ChunkTilesShared<Layout, Chunk>*>((reinterpret_cast<uintptr_t>(memory) + 1023) & ~uintptr_t{1023});
  const AttentionTilesParams& p = c.of;
  const uint32_t full = ptx::smemAddress(&shared.full), raw = ptx::smemAddress(shared.raw), chunk = ptx::smemAddress(shared.chunk);
  const int4 tile = beginTile(p, full);
  // Tokens from the tile's first on: that exist; that are old.
  const int left = tile.z - tile.y * kKeys, old = tile.w - tile.y * kKeys;
  if (threadIdx.x == 0) {
    const size_t row = static_cast<size_t>(tile.x) * p.pagesPerSequence + tile.y * kTilePages;
    const auto place = [&](const int32_t* table, int i) { return static_cast<size_t>(table[row + i]) * p.keyHeads + blockIdx.y; };
    const int oldPages = max(0, min(kTilePages, (min(old, left) + kPageTokens - 1) / kPageTokens));
    const int newFrom = max(0, old / kPageTokens), newTo = min(kTilePages, (left + kPageTokens - 1) / kPageTokens);
    ptx::barrierArriveExpect(full, oldPages * Layout::kPageBytes + max(0, newTo - newFrom) * Chunk::kPageBytes);
    for (int i = 0; i < oldPages; i++)
      ptx::copyBulk(raw + i * Layout::kPageBytes, p.cache + place(p.pageTable, i) * Layout::kPageBytes, Layout::kPageBytes, full);
    for (int i = newFrom; i < newTo; i++)
      ptx::copyBulk(chunk + i * Chunk::kPageBytes, c.chunk + place(c.chunkPageTable, i) * Chunk::kPageBytes, Chunk::kPageBytes, full);
  }
  ptx::barrierWait(full, 0);
  const int token = threadIdx.x;
  writeScales<Layout>(shared, token < old ? scalesOf<Layout>(raw, token) : scalesOf<Chunk, true>(chunk, token), token < left);
  const uint32_t keys = ptx::smemAddress(shared.tile.keys), values = ptx::smemAddress(shared.tile.values);
  if (old > 0) decodeKeys<Layout>(raw, keys), decodeValues<Layout>(raw, values, left);
  __syncthreads();
  if (old < kKeys) decodeKeys<Chunk>(chunk, keys, old), decodeValues<Chunk, true>(chunk, values, left, old);
  storeTile(p, shared.tile);
}

}  // namespace fireq
