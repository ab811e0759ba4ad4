#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "memory.h"

namespace fireq {

enum class WeightFormat : uint8_t {
  F32,
  BF16,
  F16,
  Int4,        ///< value (u − 8)·σ
  Int4Lookup,  ///< value E4M3((u − 8)·σ)
};

enum class ScaleType : uint8_t { F32, BF16, E4M3 };

/// Where in a word of 8 INT4 codes the code k is: its lowest bit.
constexpr int nibbleShift(int k) { return 8 * (k % 4) + 4 * (k / 4); }

/// Output features that a tile packs side by side, one in each lane.
constexpr int kTile = 16;
/// Longest run of K that is summed on its own before the sum is scaled and added to the total.
constexpr int kBlock = 128;

/// A run of K: part of one scale's group, or of a dense row.
struct Block {
  int32_t begin;   ///< first k
  int32_t length;  ///< how many
  int32_t word;    ///< first row of words in the tile
  int32_t words;   ///< ⌈length / valuesPerWord⌉: a block starts with a fresh word
};

/**
 * A weight as the kernels read it. A matrix [rows N, columns K] is cut into tiles of 16 rows, each laid out as
 *
 *   float    scales[blocks][16]      INT4 only
 *   uint32_t words[wordRows][16]     lane = row; a word holds 8 INT4 codes, 2 BF16/F16 or 1 F32 along K
 *
 * BF16, F16: the first of two in the low half. INT4: codes 0…3 in the low nibbles of the word's bytes, 4…7 in the high
 * ones, so that a masked word is four bytes in order of K.
 *
 * So one vector load gives every lane its own row's next values. Rows and values past the end are padding: code 0
 * with a scale of 0, dense zeros. A vector is kept as plain FP32.
 */
struct Weight {
  WeightFormat format = WeightFormat::F32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<Block> blocks;
  int64_t wordRows = 0;
  int64_t tiles = 0;
  size_t tileBytes = 0;
  Memory data;
  std::vector<float> channelScale;  ///< padded to whole tiles; empty if all are 1
  std::vector<float> vector;        ///< of a rank-1 weight

  bool isVector() const { return !vector.empty(); }
  bool isInt4() const { return format == WeightFormat::Int4 || format == WeightFormat::Int4Lookup; }
  int valuesPerWord() const { return isInt4() ? 8 : format == WeightFormat::F32 ? 1 : 2; }
  int64_t paddedColumns() const { return wordRows * valuesPerWord(); }
  int64_t blockCount() const { return static_cast<int64_t>(blocks.size()); }
  const Block* blockData() const { return blocks.data(); }
  size_t bytes() const;

  const float* scales(int64_t tile) const { return reinterpret_cast<const float*>(tileData(tile)); }
  const uint32_t* words(int64_t tile) const {
    const size_t scaleBytes = isInt4() ? blocks.size() * kTile * sizeof(float) : 0;
    return reinterpret_cast<const uint32_t*>(tileData(tile) + scaleBytes);
  }
  const char* tileData(int64_t tile) const { return static_cast<const char*>(data.data()) + tile * tileBytes; }

  /// Writes row n to out[columns], channel scale included. For picking single rows, as an embedding does.
  void decodeRow(int64_t row, float* out) const;
};

/// An empty matrix of this layout; rows are filled by the functions below, whole tiles at a time.
Weight makeMatrix(WeightFormat format, int64_t rows, int64_t columns, int64_t groupSize);
Weight makeVector(WeightFormat format, int64_t length, const void* values);

/// Packs the 16 (or, at the end, fewer) rows of one tile. `values` points at the tile's first row, row-major.
void packDenseTile(Weight& weight, int64_t tile, const void* values);

/// The same for INT4. `codes` holds nibbles and `scales` the groups' scales; both begin at the tile's first row.
struct Int4Rows {
  const uint8_t* codes;
  const void* scales;
  ScaleType scaleType;
  int64_t groupSize;
};
void packInt4Tile(Weight& weight, int64_t tile, const Int4Rows& rows);

}  // namespace fireq
