#include "weight.h"

#include <algorithm>
#include <cstring>

#include "error.h"
#include "numbers.h"

namespace fireq {

namespace {

float scaleAt(const void* scales, ScaleType type, int64_t index) {
  switch (type) {
    case ScaleType::F32: return static_cast<const float*>(scales)[index];
    case ScaleType::BF16: return bf16ToF32(static_cast<const uint16_t*>(scales)[index]);
    case ScaleType::E4M3: return e4m3ToF32(static_cast<const uint8_t*>(scales)[index]);
  }
  return 0;
}

float denseAt(const void* values, WeightFormat format, int64_t index) {
  switch (format) {
    case WeightFormat::F32: return static_cast<const float*>(values)[index];
    case WeightFormat::BF16: return bf16ToF32(static_cast<const uint16_t*>(values)[index]);
    default: return f16ToF32(static_cast<const uint16_t*>(values)[index]);
  }
}

/// Nibble i of 16 bits to byte i.
uint32_t spreadNibbles(uint32_t nibbles) {
  nibbles = (nibbles | nibbles << 8) & 0x00ff00ff;
  return (nibbles | nibbles << 4) & 0x0f0f0f0f;
}

/// 8 codes of a checkpoint, even k in the low nibble of each byte, in the order of a word.
uint32_t orderNibbles(const uint8_t* codes) {
  uint32_t word;
  std::memcpy(&word, codes, sizeof word);
  return spreadNibbles(word & 0xffff) | spreadNibbles(word >> 16) << 4;
}

float roundE4m3(float value) { return e4m3ToF32(f32ToE4m3(value)); }

}  // namespace

size_t Weight::bytes() const { return data.bytes() + (channelScale.size() + vector.size()) * sizeof(float); }

Weight makeMatrix(WeightFormat format, int64_t rows, int64_t columns, int64_t groupSize) {
  Weight weight;
  weight.format = format;
  weight.rows = rows;
  weight.columns = columns;
  weight.tiles = (rows + kTile - 1) / kTile;
  const int perWord = weight.valuesPerWord();
  for (int64_t group = 0; group < columns; group += groupSize) {
    for (int64_t k = group; k < group + groupSize; k += kBlock) {
      const auto length = static_cast<int32_t>(std::min<int64_t>(kBlock, group + groupSize - k));
      const int32_t words = (length + perWord - 1) / perWord;
      weight.blocks.push_back({static_cast<int32_t>(k), length, static_cast<int32_t>(weight.wordRows), words});
      weight.wordRows += words;
    }
  }
  const size_t scaleBytes = weight.isInt4() ? weight.blocks.size() * kTile * sizeof(float) : 0;
  weight.tileBytes = scaleBytes + weight.wordRows * kTile * sizeof(uint32_t);
  weight.data = Memory(weight.tiles * weight.tileBytes);
  return weight;
}

Weight makeVector(WeightFormat format, int64_t length, const void* values) {
  Weight weight;
  weight.rows = length;
  weight.columns = 1;
  weight.vector.resize(length);
  for (int64_t i = 0; i < length; i++) weight.vector[i] = denseAt(values, format, i);
  return weight;
}

void packDenseTile(Weight& weight, int64_t tile, const void* values) {
  auto* words = const_cast<uint32_t*>(weight.words(tile));
  const int64_t rows = std::min<int64_t>(kTile, weight.rows - tile * kTile);
  for (const Block& block : weight.blocks) {
    for (int64_t row = 0; row < rows; row++) {
      const int64_t from = row * weight.columns + block.begin;
      uint32_t* to = words + static_cast<int64_t>(block.word) * kTile + row;
      if (weight.format == WeightFormat::F32) {
        const auto* source = static_cast<const uint32_t*>(values) + from;
        for (int32_t i = 0; i < block.length; i++) to[i * kTile] = source[i];
      } else {
        const auto* source = static_cast<const uint16_t*>(values) + from;
        for (int32_t i = 0; i < block.length; i++) to[i / 2 * kTile] |= static_cast<uint32_t>(source[i]) << 16 * (i % 2);
      }
    }
  }
}

void packInt4Tile(Weight& weight, int64_t tile, const Int4Rows& source) {
  auto* scales = const_cast<float*>(weight.scales(tile));
  auto* words = const_cast<uint32_t*>(weight.words(tile));
  const int64_t rows = std::min<int64_t>(kTile, weight.rows - tile * kTile);
  const int64_t groups = weight.columns / source.groupSize;
  for (int64_t b = 0; b < weight.blockCount(); b++) {
    const Block& block = weight.blocks[b];
    for (int64_t row = 0; row < rows; row++) {
      scales[b * kTile + row] = scaleAt(source.scales, source.scaleType, row * groups + block.begin / source.groupSize);
      const int64_t from = row * weight.columns + block.begin;
      uint32_t* to = words + static_cast<int64_t>(block.word) * kTile + row;
      if (from % 2 == 0 && block.length % 8 == 0) {
        for (int32_t w = 0; w < block.words; w++) to[w * kTile] = orderNibbles(source.codes + from / 2 + w * 4);
      } else {
        for (int32_t i = 0; i < block.length; i++) {
          const int64_t at = from + i;
          const uint32_t code = source.codes[at / 2] >> 4 * (at % 2) & 15;
          to[i / 8 * kTile] |= code << nibbleShift(i % 8);
        }
      }
    }
  }
}

void Weight::decodeRow(int64_t row, float* out) const {
  const int64_t tile = row / kTile;
  const int lane = static_cast<int>(row % kTile);
  const uint32_t* tileWords = words(tile);
  const float channel = channelScale.empty() ? 1 : channelScale[row];
  for (int64_t b = 0; b < blockCount(); b++) {
    const Block& block = blocks[b];
    const uint32_t* from = tileWords + static_cast<int64_t>(block.word) * kTile + lane;
    for (int32_t i = 0; i < block.length; i++) {
      float& value = out[block.begin + i];
      if (isInt4()) {
        const int code = static_cast<int>(from[i / 8 * kTile] >> nibbleShift(i % 8) & 15) - 8;
        value = static_cast<float>(code) * scales(tile)[b * kTile + lane];
        if (format == WeightFormat::Int4Lookup) value = roundE4m3(value);
        value *= channel;
      } else if (format == WeightFormat::F32) {
        std::memcpy(&value, from + i * kTile, sizeof value);
      } else {
        const auto bits = static_cast<uint16_t>(from[i / 2 * kTile] >> 16 * (i % 2));
        value = denseAt(&bits, format, 0);
      }
    }
  }
}

}  // namespace fireq
