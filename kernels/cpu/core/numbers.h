#pragma once

#include <cstdint>

namespace fireq {

// Single numbers, to the bit as packages/formats defines them. Rows of numbers: cpu/simd/convert.h.

float bf16ToF32(uint16_t bits);
float f16ToF32(uint16_t bits);
float e4m3ToF32(uint8_t bits);
/// Nearest, halves to even; a NaN stays one.
uint16_t f32ToBf16(float value);
/// Nearest, halves to even; saturates at ±448, infinities too; a NaN stays one.
uint8_t f32ToE4m3(float value);

}  // namespace fireq
