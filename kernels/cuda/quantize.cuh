// BF16 rows → E4M3 rows with one FP32 scale a row: scale = max|x| / 448, out = E4M3(x / scale), as the op quantizeFp8
// defines it, to the bit. A block has a row in registers, 8 elements a vector.
#pragma once
#include <cstdint>
#include <type_traits>

#include "ptx.cuh"

namespace fireq {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kVectorElements = 8;

__device__ __forceinline__ float lowBf16(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float highBf16(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

/// The larger magnitudes of two pairs; a NaN loses against anything.
__device__ __forceinline__ uint32_t maxMagnitudes(uint32_t magnitudes, uint32_t pair) {
  uint32_t result;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(result) : "r"(magnitudes), "r"(pair & 0x7fff7fffu));
  return result;
}

__device__ __forceinline__ uint32_t packE4m3(float low, float high) {
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

/// Each warp's value, combined for all threads. `room` holds 32 elements; it may be used again after another barrier.
template <class T, class Combine>
__device__ __forceinline__ T combineWarps(T value, T* room, T neutral, Combine combine) {
  const int lane = threadIdx.x % 32, warps = (blockDim.x + 31) / 32;
  if (lane == 0) room[threadIdx.x / 32] = value;
  __syncthreads();
  return combine(lane < warps ? room[lane] : neutral);
}

__device__ __forceinline__ float sumOfBlock(float value, float* room) {
  const auto sumOfWarp = [](float v) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(kAllLanes, v, distance);
    return v;
  };
  return combineWarps(sumOfWarp(value), room, 0.f, sumOfWarp);
}

__device__ __forceinline__ uint32_t maxOfBlock(uint32_t value, uint32_t* room) {
  const auto maxOfWarp = [](uint32_t v) { return __reduce_max_sync(kAllLanes, v); };
  return combineWarps(maxOfWarp(value), room, 0u, maxOfWarp);
}

/// Divides by one scale: x · (1/scale) with Markstein's correction. For every BF16 x and every scale of 2⁻⁹⁰ and above, E4M3 of it is
/// E4M3 of the true quotient. The remainder has its sign turned so that a −0 stays one.
struct Divisor {
  float scale, reciprocal;

  __device__ explicit Divisor(float s) : scale(s), reciprocal(__frcp_rn(s)) {
    if (s > 0x1.fffffep127f) scale = 0.f;  // by infinity the product alone is right
  }

  __device__ float divide(float x) const {
    const float quotient = x * reciprocal;
    const float excess = __fmaf_rn(quotient, scale, -x);
    return __fmaf_rn(-excess, reciprocal, quotient);
  }
};

/// up: what x is multiplied by before, as the divisor was.
template <bool kUp>
__device__ __forceinline__ uint2 quantizeVector(const uint4& x, const Divisor& by, float up) {
  auto pair = [&](uint32_t v) {
    const float low = kUp ? lowBf16(v) * up : lowBf16(v), high = kUp ? highBf16(v) * up : highBf16(v);
    return packE4m3(by.divide(low), by.divide(high));
  };
  return {pair(x.x) | pair(x.y) << 16, pair(x.z) | pair(x.w) << 16};
}

/// Quantizes the block's row, of which this thread has the vectors threadIdx.x, threadIdx.x + blockDim.x, …
template <int kVectors>
__device__ __forceinline__ void quantizeRow(const uint4 (&x)[kVectors], int vectors, uint2* out, float* scale) {
  __shared__ uint32_t room[32];
  uint32_t magnitudes = 0;
#pragma unroll
  for (int i = 0; i < kVectors; i++) {
    magnitudes = maxMagnitudes(maxMagnitudes(magnitudes, x[i].x), x[i].y);
    magnitudes = maxMagnitudes(maxMagnitudes(magnitudes, x[i].z), x[i].w);
  }
  // Magnitudes order as their bits do.
  const float most = __uint_as_float(maxOfBlock(max(magnitudes << 16, magnitudes & 0xffff0000u), room));
  const float by = most == 0.f ? 1.f : fmaxf(__fdiv_rn(most, 448.f), 0x1p-126f);
  if (threadIdx.x == 0) *scale = by;
  const bool isTiny = by < 0x1p-90f;  // remainders would underflow
  const Divisor divisor(isTiny ? by * 0x1p64f : by);
  auto write = [&](auto tiny) {
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const int vector = threadIdx.x + i * blockDim.x;
      if (vector < vectors) out[vector] = quantizeVector<decltype(tiny)::value>(x[i], divisor, 0x1p64f);
    }
  };
  if (isTiny)
    write(std::true_type{});
  else
    write(std::false_type{});
}

/// This thread's vectors of a row; zeros beyond its end.
template <int kVectors>
__device__ __forceinline__ void loadRow(uint4 (&values)[kVectors], const uint4* row, int vectors) {
#pragma unroll
  for (int i = 0; i < kVectors; i++) {
    const int vector = threadIdx.x + i * blockDim.x;
    values[i] = vector < vectors ? row[vector] : uint4{};
  }
}

/// x BF16 [rows, columns], out E4M3 [rows, columns], scale [rows]; columns a multiple of 8, at most kVectors · 8 a thread.
/// A block a row, backwards: the rows that were written last may still be in the L2, and who reads the result begins with the first.
template <int kVectors>
__device__ __forceinline__ void quantizeTokens(const uint4* x, uint2* out, float* scale, int columns) {
  const int vectors = columns / kVectorElements;
  const size_t row = gridDim.x - 1 - blockIdx.x;
  ptx::launchDependents();
  ptx::waitForPrevious();
  uint4 values[kVectors];
  loadRow(values, x + row * vectors, vectors);
  quantizeRow(values, vectors, out + row * vectors, scale + row);
}

/// Adds the squares of a pair.
__device__ __forceinline__ float addSquares(float sum, uint32_t pair) {
  return __fmaf_rn(highBf16(pair), highBf16(pair), __fmaf_rn(lowBf16(pair), lowBf16(pair), sum));
}

__device__ __forceinline__ uint32_t normalizePair(uint32_t x, float factor, uint32_t weight) {
  return ptx::packBf16(lowBf16(x) * factor * lowBf16(weight), highBf16(x) * factor * highBf16(weight));
}

/// x / √(mean(x²) + epsilon) · weight, rounded to BF16, then quantized: the op rmsNormQuantize in FP32. weight BF16
/// [columns], the rest as above. A block walks through rows, the weights in registers and the next row on its way.
template <int kVectors>
__device__ __forceinline__ void rmsNormQuantize(const uint4* x, const uint4* weight, float epsilon, uint2* out,
                                                float* scale, int rows, int columns) {
  __shared__ float room[32];
  const int vectors = columns / kVectorElements;
  ptx::launchDependents();
  uint4 weights[kVectors], next[kVectors];
  loadRow(weights, weight, vectors);  // doesn't depend on the kernel before this one
  ptx::waitForPrevious();
  loadRow(next, x + static_cast<size_t>(blockIdx.x) * vectors, vectors);
  for (size_t row = blockIdx.x; row < rows; row += gridDim.x) {
    uint4 values[kVectors];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const uint4 v = values[i] = next[i];
      sum = addSquares(addSquares(addSquares(addSquares(sum, v.x), v.y), v.z), v.w);
    }
    if (row + gridDim.x < rows) loadRow(next, x + (row + gridDim.x) * vectors, vectors);
    const float mean = __fdiv_rn(sumOfBlock(sum, room), static_cast<float>(columns));
    const float factor = __fdiv_rn(1.f, __fsqrt_rn(mean + epsilon));
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
      const uint4 v = values[i], w = weights[i];
      values[i] = {normalizePair(v.x, factor, w.x), normalizePair(v.y, factor, w.y), normalizePair(v.z, factor, w.z),
                   normalizePair(v.w, factor, w.w)};
    }
    quantizeRow(values, vectors, out + row * vectors, scale + row);
  }
}

}  // namespace fireq
