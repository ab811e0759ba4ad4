// The PTX this project's kernels need for numbers: approximations, conversions, FP16 in pairs, matrices of a warp. See ptx.cuh.
#pragma once
#include <cstdint>

namespace fireq::ptx {

// --- numbers ----------------------------------------------------------------------------------------------------------

/// The same value in another register.
__device__ __forceinline__ float another(float v) {
  float copy;
  asm volatile("mov.b32 %0, %1;" : "=f"(copy) : "f"(v));
  return copy;
}

/// 1 / x to about one ulp; subnormal x counts as zero.
__device__ __forceinline__ float reciprocal(float x) {
  float v;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(x));
  return v;
}

__device__ __forceinline__ uint32_t packBf16(float low, float high) {
  uint32_t v;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
  return v;
}

__device__ __forceinline__ uint32_t packHalf(float low, float high) {
  uint32_t v;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
  return v;
}

__device__ __forceinline__ float2 unpackHalf(uint32_t v) {
  float2 f;
  asm("{\n.reg .b16 low, high;\nmov.b32 {low, high}, %2;\ncvt.f32.f16 %0, low;\ncvt.f32.f16 %1, high;\n}\n"
      : "=f"(f.x), "=f"(f.y)
      : "r"(v));
  return f;
}

__device__ __forceinline__ float exp2Fast(float x) {
  float v;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(x));
  return v;
}

__device__ __forceinline__ float log2Fast(float x) {
  float v;
  asm("lg2.approx.f32 %0, %1;" : "=f"(v) : "f"(x));
  return v;
}

/// The same; a subnormal x counts as zero.
__device__ __forceinline__ float log2FastFtz(float x) {
  float v;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(x));
  return v;
}

/// Four E4M3 codes, rounded to nearest even and saturated, a in the lowest byte.
__device__ __forceinline__ uint32_t packE4m3(float a, float b, float c, float d) {
  uint32_t v;
  asm("{.reg .b16 low, high;\ncvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\ncvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\nmov.b32 %0, {low, high};\n}"
      : "=r"(v) : "f"(a), "f"(b), "f"(c), "f"(d));
  return v;
}

/// The smaller one; NaN if one is.
__device__ __forceinline__ float minOrNan(float a, float b) {
  float v;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
  return v;
}

// --- halves -----------------------------------------------------------------------------------------------------------

/// The two E4M3 numbers in the low or high half of a word, in FP16.
template <bool kHigh = false>
__device__ __forceinline__ uint32_t e4m3ToHalves(uint32_t bytes) {
  uint32_t halves;
  if constexpr (kHigh)
    asm("{.reg .b16 a, b;\nmov.b32 {a, b}, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(bytes));
  else
    asm("{.reg .b16 a, b;\nmov.b32 {a, b}, %1;\ncvt.rn.f16x2.e4m3x2 %0, a;\n}" : "=r"(halves) : "r"(bytes));
  return halves;
}

/// Two FP16 products.
__device__ __forceinline__ uint32_t multiplyHalves(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("mul.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
  return v;
}

/// Bytes of a (0…3) and b (4…7) that the selector's nibbles name; with bit 3, the byte's sign eight times.
__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t v;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(selector));
  return v;
}

__device__ __forceinline__ uint32_t addHalves(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
  return v;
}

/// The larger ones; a number if one of two is NaN.
__device__ __forceinline__ uint32_t maxHalves(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("max.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
  return v;
}

/// 0xffff where a's number is greater than b's, 0 elsewhere and where one is NaN.
__device__ __forceinline__ uint32_t whereGreaterHalves(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("set.gt.u32.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
  return v;
}

/// Not to be made one with a sum that follows.
__device__ __forceinline__ uint32_t multiplyHalvesRounded(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(v) : "r"(a), "r"(b));
  return v;
}

__device__ __forceinline__ uint32_t multiplyAddHalves(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t v;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(c));
  return v;
}

/// Clamped to 0…1; 0 if it is NaN.
__device__ __forceinline__ uint32_t multiplyAddHalvesSaturated(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t v;
  asm("fma.rn.sat.f16x2 %0, %1, %2, %3;" : "=r"(v) : "r"(a), "r"(b), "r"(c));
  return v;
}

__device__ __forceinline__ uint32_t exp2FastHalves(uint32_t a) {
  uint32_t v;
  asm("ex2.approx.f16x2 %0, %1;" : "=r"(v) : "r"(a));
  return v;
}

/// E4M3 codes of a's two numbers, then of b's, saturated.
__device__ __forceinline__ uint32_t halvesToE4m3(uint32_t a, uint32_t b) {
  uint32_t v;
  asm("{.reg .b16 low, high;\ncvt.rn.satfinite.e4m3x2.f16x2 low, %1;\ncvt.rn.satfinite.e4m3x2.f16x2 high, %2;\nmov.b32 %0, {low, high};\n}"
      : "=r"(v) : "r"(a), "r"(b));
  return v;
}

// --- matrices of a warp -----------------------------------------------------------------------------------------------

/// Transposes an 8×8 matrix of 16-bit elements held by a warp: lane i has elements 2(i % 4), 2(i % 4) + 1 of row i / 4.
__device__ __forceinline__ uint32_t transposeMatrix(uint32_t v) {
  uint32_t t;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(t) : "r"(v));
  return t;
}

/// A warp's mma m16n8k16 of FP16 or BF16 operands into FP32.
template <bool kBf16>
__device__ __forceinline__ void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, const uint32_t (&b)[2]) {
  if constexpr (kBf16)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b[0]), "r"(b[1]));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b[0]), "r"(b[1]));
}

}  // namespace fireq::ptx
