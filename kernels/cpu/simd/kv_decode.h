#pragma once

// Keys and values of a cache as FP32 panels; the layouts are in core/kv_cache.h.

#include "../core/kv_cache.h"
#include "convert.h"
#include "decode.h"
#include "vec.h"

namespace fireq::FIREQ_ISA {

/// Where a tile of keys or a run of values lies.
struct KvPlace {
  int64_t layer;
  int64_t page;
  int64_t head;
};

/// 16 keys to panel[headDim][16]; up to 7 rows past headDim are written too.
inline void decodeKeys(const KvCache& kv, const KvPlace& at, int64_t tile, float* panel) {
  const uint32_t* words = kv.keyTile(at.layer, at.page, at.head, tile);
  const KvFormat& format = kv.shape().format;
  const auto rows = static_cast<int32_t>(kv.keyWordRows());
  if (format.type == KvType::F32) return decodePanel<DecodeF32>(words, rows, nullptr, panel);
  if (format.type == KvType::BF16) return decodePanel<DecodeBf16>(words, rows, nullptr, panel);
  for (int64_t g = 0; g < kv.groups(); g++) {
    const int64_t count = (kv.groupLength(g) + 7) / 8;
    const int64_t first = kv.keyScaleIndex(at.layer, at.page, at.head, tile, g);
    for (int p = 0; p < kParts; p++) {
      const int64_t lanes = first + p * kWidth;
      const VF scale = format.e4m3Scale ? fromE4m3(static_cast<const uint8_t*>(kv.keyScales().bits.data()) + lanes)
                                        : fromBf16(static_cast<const uint16_t*>(kv.keyScales().bits.data()) + lanes);
      VF zero = splat(8);
      if (!format.symmetric) {
        zero = toF(__builtin_convertvector(
            load<VB>(static_cast<const uint8_t*>(kv.keyScales().zeros.data()) + lanes), VU));
      }
      for (int64_t w = 0; w < count; w++) {
        const VU word = load<VU>(words + w * kKeyTile + p * kWidth);
        unrolled<8>([&](auto j) __attribute__((always_inline)) {
          store(panel + (w * 8 + j) * kKeyTile + p * kWidth, (toF(word >> 4 * j & 15u) - zero) * scale);
        });
      }
    }
    words += count * kKeyTile;
    panel += kKvGroup * kKeyTile;
  }
}

/// One group of a value's INT4 channels; `count` words, N of which are decoded at once.
template <int N>
FIREQ_INLINE void decodeValueGroup(const uint8_t* row, int64_t count, float scale, float zero, float* out) {
  using F = typename VectorOf<N>::F;
  using I = typename VectorOf<N>::I;
  using U = typename VectorOf<N>::U;
  for (int64_t w = 0; w + N <= count; w += N) {
    const U word = load<U>(row + w * 4);
    for (int j = 0; j < 8; j++) {
      const F code = __builtin_convertvector(reinterpret_cast<I>(word >> 4 * j & 15u), F);
      store(out + j * count + w, (code - zero) * scale);
    }
  }
}

/// One slot's value to out[headDim]; up to 7 floats past headDim are written too.
inline void decodeValue(const KvCache& kv, const KvPlace& at, int64_t offset, float* out) {
  const uint8_t* row = kv.valueRow(at.layer, at.page, at.head, offset);
  const KvFormat& format = kv.shape().format;
  if (format.type != KvType::Int4) {
    return toFloats(format.type == KvType::F32 ? DType::F32 : DType::BF16, row, kv.shape().headDim, out);
  }
  for (int64_t g = 0; g < kv.groups(); g++) {
    const int64_t count = (kv.groupLength(g) + 7) / 8;
    const int64_t index = kv.valueScaleIndex(at.layer, at.page, at.head, offset, g);
    const float scale = format.e4m3Scale ? e4m3ToF32(static_cast<const uint8_t*>(kv.valueScales().bits.data())[index])
                                         : bf16ToF32(static_cast<const uint16_t*>(kv.valueScales().bits.data())[index]);
    const float zero =
        format.symmetric ? 8.0f : static_cast<float>(static_cast<const uint8_t*>(kv.valueScales().zeros.data())[index]);
    if (count % kWidth == 0) {
      decodeValueGroup<kWidth>(row, count, scale, zero, out);
    } else if (count % 4 == 0) {
      decodeValueGroup<4>(row, count, scale, zero, out);
    } else {
      decodeValueGroup<1>(row, count, scale, zero, out);
    }
    row += count * 4;
    out += kKvGroup;
  }
}

}  // namespace fireq::FIREQ_ISA
