// Partial sums as half floats times a power of two a row: 11 bits, an error of about 1.4e-4, lost in that of rounding the
// result to BF16, for half the bytes.
#pragma once
#include <cstdint>

namespace fireq {

/// v · 2^n has its largest magnitude in [2¹⁴, 2¹⁵) for the largest magnitude `most`; → 2^n, and 2^−n in `back`.
__device__ __forceinline__ float halfRange(float most, float& back) {
  const uint32_t exponent = max(__float_as_uint(most) >> 23, 16u) - 14;  // biased
  back = __uint_as_float(exponent << 23);
  return __uint_as_float((254 - exponent) << 23);
}

/// The factors of a warp's 16 rows of an accumulator in the fragment layout of wgmma: this lane's rows r and r + 8.
template <int kCount>
__device__ __forceinline__ void halfFactors(const float (&d)[kCount], float (&up)[2], float (&back)[2]) {
  float most[2] = {0.f, 0.f};
#pragma unroll
  for (int i = 0; i < kCount; i++) most[i / 2 % 2] = fmaxf(most[i / 2 % 2], fabsf(d[i]));
#pragma unroll
  for (int half = 0; half < 2; half++) {
    most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 1));
    most[half] = fmaxf(most[half], __shfl_xor_sync(~0u, most[half], 2));
    up[half] = halfRange(most[half], back[half]);
  }
}

}  // namespace fireq
