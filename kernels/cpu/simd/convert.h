#pragma once

// Rows of numbers between their stored types and FP32, to the bit as core/numbers.h does single ones.

#include "../core/dtype.h"
#include "../core/numbers.h"
#include "vec.h"

namespace fireq::FIREQ_ISA {

FIREQ_INLINE VF fromBf16(const uint16_t* from) { return asF(__builtin_convertvector(load<VH>(from), VU) << 16); }

FIREQ_INLINE VF fromE4m3(const uint8_t* from) {
  const VU bits = __builtin_convertvector(load<VB>(from), VU);
  const VU sign = (bits & 0x80u) << 24;
  const VU magnitude = bits & 0x7fu;
  const VU value = asU(asF(magnitude << 20) * 0x1p120f);
  const VU nan = splatU(0x7fc00000u);
  return asF((asI(magnitude) == 0x7f ? nan : value) | sign);
}

/// BF16 bits, in the low halves.
FIREQ_INLINE VU toBf16(VF v) {
  const VU bits = asU(v);
  const VU rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return v != v ? splatU(0x7fc0u) : rounded;
}

/// The E4M3 number nearest to v, halves to even, saturated at ±448; a NaN stays one.
FIREQ_INLINE VF roundE4m3(VF v) {
  const VU sign = asU(v) & 0x80000000u;
  const VF magnitude = min(abs(v), splat(448.0f));  // a NaN becomes 448 here
  const VU bits = asU(magnitude);
  const VF normal = asF((bits + 0x7ffffu + (bits >> 20 & 1u)) & 0xfff00000u);
  const VF subnormal = (magnitude + 0x1p14f) - 0x1p14f;  // steps of 2⁻⁹
  const VF rounded = select(magnitude < 0x1p-6f, subnormal, normal);
  return select(v != v, v, asF(asU(rounded) | sign));
}

/// E4M3 bits, in the low bytes.
FIREQ_INLINE VU toE4m3(VF v) {
  const VF rounded = roundE4m3(v);
  const VU bits = asU(rounded);
  const VU magnitude = bits & 0x7fffffffu;
  const VU normal = (magnitude >> 20) - (120u << 3);
  const VU subnormal = asU(__builtin_convertvector(asF(magnitude) * 0x1p9f, VI));
  const VU code = (asF(magnitude) < 0x1p-6f ? subnormal : normal) | (bits >> 24 & 0x80u);
  return v != v ? splatU(0x7fu) : code;
}

/// `count` values of a stored row as FP32.
inline void toFloats(DType dtype, const void* from, int64_t count, float* out) {
  int64_t i = 0;
  if (dtype == DType::BF16) {
    const auto* source = static_cast<const uint16_t*>(from);
    for (; i + kWidth <= count; i += kWidth) store(out + i, fromBf16(source + i));
    for (; i < count; i++) out[i] = bf16ToF32(source[i]);
  } else if (dtype == DType::E4M3) {
    const auto* source = static_cast<const uint8_t*>(from);
    for (; i + kWidth <= count; i += kWidth) store(out + i, fromE4m3(source + i));
    for (; i < count; i++) out[i] = e4m3ToF32(source[i]);
  } else {
    std::memcpy(out, from, count * sizeof(float));
  }
}

/// FP32 to a stored row, rounded to its type.
inline void fromFloats(const float* from, int64_t count, DType dtype, void* out) {
  int64_t i = 0;
  if (dtype == DType::BF16) {
    auto* target = static_cast<uint16_t*>(out);
    for (; i + kWidth <= count; i += kWidth) storeHalves(target + i, toBf16(load<VF>(from + i)));
    for (; i < count; i++) target[i] = f32ToBf16(from[i]);
  } else if (dtype == DType::E4M3) {
    auto* target = static_cast<uint8_t*>(out);
    for (; i + kWidth <= count; i += kWidth) storeBytes(target + i, toE4m3(load<VF>(from + i)));
    for (; i < count; i++) target[i] = f32ToE4m3(from[i]);
  } else if (out != from) {
    std::memcpy(out, from, count * sizeof(float));
  }
}

FIREQ_INLINE char* rowOf(const View& view, int64_t row) {
  return static_cast<char*>(view.data) + row * view.columns * static_cast<int64_t>(sizeOf(view.dtype));
}

/// A row of a buffer as FP32: the buffer itself, or `room` after conversion.
inline const float* readRow(const View& view, int64_t row, float* room) {
  if (view.dtype == DType::F32) return reinterpret_cast<const float*>(rowOf(view, row));
  toFloats(view.dtype, rowOf(view, row), view.columns, room);
  return room;
}

/// Where to compute a row of an FP32 or BF16 buffer: in place or in `room`. `writeRow` puts it where it belongs.
FIREQ_INLINE float* roomFor(const View& view, int64_t row, float* room) {
  return view.dtype == DType::F32 ? reinterpret_cast<float*>(rowOf(view, row)) : room;
}
inline void writeRow(const float* values, const View& view, int64_t row) {
  fromFloats(values, view.columns, view.dtype, rowOf(view, row));
}

}  // namespace fireq::FIREQ_ISA
