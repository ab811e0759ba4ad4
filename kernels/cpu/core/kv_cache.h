#pragma once

#include <cstdint>

#include "memory.h"

namespace fireq {

/// Tokens of a page whose keys lie side by side, one in each lane.
constexpr int kKeyTile = 16;
/// Channels that share a scale in an INT4 cache, at the most.
constexpr int kKvGroup = 128;

enum class KvType : uint8_t { F32, BF16, Int4 };

struct KvFormat {
  KvType type = KvType::F32;
  bool symmetric = false;
  bool e4m3Scale = false;  ///< else BF16

  bool operator==(const KvFormat&) const = default;
};

struct KvShape {
  int64_t layers = 0;
  int64_t heads = 0;
  int64_t headDim = 0;
  int64_t pages = 0;
  int64_t pageSize = 0;
  KvFormat format;
};

/**
 * Keys and values in pages. Within a page, layer and head:
 *
 *  - keys in tiles of 16 slots, words[wordRows][16], lane = slot, as a weight's tile: a score is a dot product over the
 *    lanes' own words. INT4: 8 channels to a word, BF16: 2, F32: 1; a group starts with a fresh word.
 *  - values slot by slot, because a sum over slots wants the channels side by side. In a group of g channels, nibble j of
 *    word w is channel j·⌈g/8⌉ + w, so that vectors of words give runs of channels. BF16, F32: plain rows.
 *  - INT4: a scale, and if asymmetric a zero point, per slot and group: [groups][16 slots] for a tile of keys,
 *    [slots][groups] for values.
 */
class KvCache {
 public:
  explicit KvCache(const KvShape& shape);

  const KvShape& shape() const { return shape_; }
  size_t bytes() const { return keys_.bytes() + values_.bytes() + bytesOf(keyScales_) + bytesOf(valueScales_); }

  int64_t groups() const { return groups_; }
  int64_t tilesPerPage() const { return tiles_; }
  int64_t keyWordRows() const { return keyWordRows_; }
  int64_t valueRowBytes() const { return valueRowBytes_; }
  int64_t groupLength(int64_t group) const {
    const int64_t rest = shape_.headDim - group * kKvGroup;
    return rest < kKvGroup ? rest : kKvGroup;
  }

  uint32_t* keyTile(int64_t layer, int64_t page, int64_t head, int64_t tile) const {
    return static_cast<uint32_t*>(keys_.data()) + ((place(layer, page, head) * tiles_ + tile) * keyWordRows_) * kKeyTile;
  }
  /// Row of values of a slot.
  uint8_t* valueRow(int64_t layer, int64_t page, int64_t head, int64_t offset) const {
    return static_cast<uint8_t*>(values_.data()) + (place(layer, page, head) * shape_.pageSize + offset) * valueRowBytes_;
  }
  /// Bits of the scales, and zero points, of the 16 keys of a tile (index of its first) or of a slot's value.
  int64_t keyScaleIndex(int64_t layer, int64_t page, int64_t head, int64_t tile, int64_t group) const {
    return ((place(layer, page, head) * tiles_ + tile) * groups_ + group) * kKeyTile;
  }
  int64_t valueScaleIndex(int64_t layer, int64_t page, int64_t head, int64_t offset, int64_t group) const {
    return (place(layer, page, head) * shape_.pageSize + offset) * groups_ + group;
  }
  struct Scales {
    Memory bits;   ///< E4M3 bytes or BF16 halves
    Memory zeros;  ///< bytes; empty if the format is symmetric, all are 8 then
  };
  const Scales& keyScales() const { return keyScales_; }
  const Scales& valueScales() const { return valueScales_; }

  /// Stores one token's key and value vectors of one head, rounded to the cache's format.
  void store(int64_t layer, int64_t slot, int64_t head, const float* key, const float* value);

 private:
  int64_t place(int64_t layer, int64_t page, int64_t head) const {
    return (layer * shape_.pages + page) * shape_.heads + head;
  }
  static size_t bytesOf(const Scales& scales) { return scales.bits.bytes() + scales.zeros.bytes(); }
  Scales makeScales(size_t count) const;
  void setScale(const Scales& scales, int64_t index, uint16_t bits, int zero);

  KvShape shape_;
  int64_t groups_ = 0;
  int64_t tiles_ = 0;
  int64_t keyWordRows_ = 0;
  int64_t valueRowBytes_ = 0;
  Memory keys_;
  Memory values_;
  Scales keyScales_;
  Scales valueScales_;
};

}  // namespace fireq
