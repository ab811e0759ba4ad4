#include "kv_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "numbers.h"

namespace fireq {

namespace {

/// A group in INT4: x ≈ scale·(code − zero), code in 0…15.
struct Int4Group {
  uint16_t scaleBits;
  int zero;
  uint8_t codes[kKvGroup];
};

float decodeScale(uint16_t bits, bool e4m3) { return e4m3 ? e4m3ToF32(static_cast<uint8_t>(bits)) : bf16ToF32(bits); }

/// The scale's type has a smallest value, which also serves a group of zeros.
uint16_t encodeScale(float scale, bool e4m3) {
  const uint16_t bits = e4m3 ? f32ToE4m3(scale) : f32ToBf16(scale);
  const float smallest = e4m3 ? 0x1p-9f : 0x1p-126f;
  return decodeScale(bits, e4m3) >= smallest ? bits : e4m3 ? f32ToE4m3(smallest) : f32ToBf16(smallest);
}

/// Nearest, halves to even; limits first, so that it can't overflow an int.
int roundCode(float value) { return static_cast<int>(std::nearbyint(std::clamp(value, -64.0f, 64.0f))); }

/// As roundKvGroup in packages/kernels/src/reference/kv-format.ts, to the bit.
Int4Group quantize(const float* x, int64_t length, const KvFormat& format) {
  Int4Group group{};
  float low = 0, high = 0;
  bool finite = true;
  for (int64_t i = 0; i < length; i++) {
    finite = finite && std::isfinite(x[i]);
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
  }
  if (!finite) {  // the whole group reads as NaN
    group.scaleBits = format.e4m3Scale ? 0x7f : 0x7fc0;
    group.zero = 8;
    return group;
  }
  const float wide = format.symmetric ? std::max(high, -low) / 7 : (high - low) / 15;
  group.scaleBits = encodeScale(wide, format.e4m3Scale);
  const float scale = decodeScale(group.scaleBits, format.e4m3Scale);
  group.zero = format.symmetric ? 8 : std::clamp(roundCode(-low / scale), 0, 15);
  for (int64_t i = 0; i < length; i++) {
    group.codes[i] = static_cast<uint8_t>(std::clamp(roundCode(x[i] / scale) + group.zero, 0, 15));
  }
  return group;
}

}  // namespace

KvCache::KvCache(const KvShape& shape) : shape_(shape) {
  const bool int4 = shape.format.type == KvType::Int4;
  groups_ = (shape.headDim + kKvGroup - 1) / kKvGroup;
  tiles_ = (shape.pageSize + kKeyTile - 1) / kKeyTile;
  if (int4) {
    for (int64_t g = 0; g < groups_; g++) keyWordRows_ += (groupLength(g) + 7) / 8;
    valueRowBytes_ = keyWordRows_ * 4;
  } else {
    const bool bf16 = shape.format.type == KvType::BF16;
    keyWordRows_ = bf16 ? (shape.headDim + 1) / 2 : shape.headDim;
    valueRowBytes_ = shape.headDim * (bf16 ? 2 : 4);
  }
  const size_t places = shape.layers * shape.pages * shape.heads;
  keys_ = Memory(places * tiles_ * keyWordRows_ * kKeyTile * sizeof(uint32_t));
  values_ = Memory(places * shape.pageSize * valueRowBytes_);
  if (int4) {
    keyScales_ = makeScales(places * tiles_ * groups_ * kKeyTile);
    valueScales_ = makeScales(places * shape.pageSize * groups_);
  }
}

KvCache::Scales KvCache::makeScales(size_t count) const {
  Scales scales;
  scales.bits = Memory(count * (shape_.format.e4m3Scale ? 1 : 2));
  if (!shape_.format.symmetric) scales.zeros = Memory(count);
  return scales;
}

void KvCache::setScale(const Scales& scales, int64_t index, uint16_t bits, int zero) {
  if (shape_.format.e4m3Scale) {
    static_cast<uint8_t*>(scales.bits.data())[index] = static_cast<uint8_t>(bits);
  } else {
    static_cast<uint16_t*>(scales.bits.data())[index] = bits;
  }
  if (!shape_.format.symmetric) static_cast<uint8_t*>(scales.zeros.data())[index] = static_cast<uint8_t>(zero);
}

void KvCache::store(int64_t layer, int64_t slot, int64_t head, const float* key, const float* value) {
  const int64_t page = slot / shape_.pageSize;
  const int64_t offset = slot % shape_.pageSize;
  const int64_t tile = offset / kKeyTile;
  const int64_t lane = offset % kKeyTile;
  uint32_t* keyWords = keyTile(layer, page, head, tile) + lane;
  uint8_t* valueBytes = valueRow(layer, page, head, offset);
  switch (shape_.format.type) {
    case KvType::F32:
      for (int64_t d = 0; d < shape_.headDim; d++) std::memcpy(keyWords + d * kKeyTile, key + d, sizeof(float));
      std::memcpy(valueBytes, value, shape_.headDim * sizeof(float));
      return;
    case KvType::BF16:
      for (int64_t d = 0; d < shape_.headDim; d += 2) {
        const uint32_t second = d + 1 < shape_.headDim ? f32ToBf16(key[d + 1]) : 0;
        keyWords[d / 2 * kKeyTile] = f32ToBf16(key[d]) | second << 16;
      }
      for (int64_t d = 0; d < shape_.headDim; d++) {
        const uint16_t bits = f32ToBf16(value[d]);
        std::memcpy(valueBytes + d * 2, &bits, 2);
      }
      return;
    case KvType::Int4:
      break;
  }
  for (int64_t g = 0; g < groups_; g++) {
    const int64_t length = groupLength(g);
    const int64_t words = (length + 7) / 8;
    const Int4Group k = quantize(key + g * kKvGroup, length, shape_.format);
    const Int4Group v = quantize(value + g * kKvGroup, length, shape_.format);
    setScale(keyScales_, keyScaleIndex(layer, page, head, tile, g) + lane, k.scaleBits, k.zero);
    setScale(valueScales_, valueScaleIndex(layer, page, head, offset, g), v.scaleBits, v.zero);
    for (int64_t w = 0; w < words; w++) {
      uint32_t keyWord = 0, valueWord = 0;
      for (int64_t j = 0; j < 8; j++) {
        if (8 * w + j < length) keyWord |= static_cast<uint32_t>(k.codes[8 * w + j]) << 4 * j;
        if (j * words + w < length) valueWord |= static_cast<uint32_t>(v.codes[j * words + w]) << 4 * j;
      }
      keyWords[w * kKeyTile] = keyWord;
      std::memcpy(valueBytes + w * 4, &valueWord, 4);
    }
    keyWords += words * kKeyTile;
    valueBytes += words * 4;
  }
}

}  // namespace fireq
