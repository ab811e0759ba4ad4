// The arithmetic of attention_store.cuh: a lane's channels of a head, turned, scaled and divided, all as the reference rounds them.
#pragma once
#include <cstdint>

#include "ptx.cuh"
#include "quantize.cuh"

namespace fireq::store {

constexpr int kLanes = 4;  // of a head
constexpr float kInfinity = __builtin_huge_valf();

/// cos and sin of an FP32 angle: Taylor series in double, to about 2⁻⁴⁶.
__device__ __forceinline__ float2 rotation(float angle) {
  const double x = angle;
  const int quarters = __double2int_rn(x * 0.63661977236758134308);
  const double r = __fma_rn(-static_cast<double>(quarters), 6.123233995736766036e-17,
                            __fma_rn(-static_cast<double>(quarters), 1.5707963267948965580, x));
  const double z = r * r;
  double sine = 1. / 6227020800, cosine = -1. / 87178291200;
  sine = __fma_rn(sine, z, -1. / 39916800), cosine = __fma_rn(cosine, z, 1. / 479001600);
  sine = __fma_rn(sine, z, 1. / 362880), cosine = __fma_rn(cosine, z, -1. / 3628800);
  sine = __fma_rn(sine, z, -1. / 5040), cosine = __fma_rn(cosine, z, 1. / 40320);
  sine = __fma_rn(sine, z, 1. / 120), cosine = __fma_rn(cosine, z, -1. / 720);
  sine = __fma_rn(sine, z, -1. / 6), cosine = __fma_rn(cosine, z, 1. / 24);
  sine = __fma_rn(sine * z, r, r), cosine = __fma_rn(__fma_rn(cosine, z, -1. / 2), z, 1.);
  const float s = static_cast<float>(quarters & 1 ? cosine : sine), c = static_cast<float>(quarters & 1 ? sine : cosine);
  return make_float2((quarters + 1) & 2 ? -c : c, quarters & 2 ? -s : s);
}

struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct LargerOrNan {
  __device__ __forceinline__ float operator()(float a, float b) const {
    float v;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
    return v;
  }
};
struct SmallerOrNan {
  __device__ __forceinline__ float operator()(float a, float b) const {
    float v;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
    return v;
  }
};

/// Far from where a remainder underflows and from infinity, also for what comes of it.
__device__ __forceinline__ bool isOrdinary(float x) { return x >= 0x1p-80f && x <= 0x1p80f; }

/// x / kDivisor, correctly rounded for an ordinary x (tests/quotient_test.cpp goes through all).
template <int kDivisor>
__device__ __forceinline__ float dividedBy(float x) {
  constexpr double kExact = 1. / kDivisor;
  constexpr float kNear = static_cast<float>(kExact), kHigh = kNear > kExact ? kNear * (1 - 0x1p-24f) : kNear;
  return __fmaf_rn(x, kHigh, __fmul_rn(x, static_cast<float>(kExact - kHigh)));
}

/// Quotients by an ordinary scale, an FMUL and an FMA each, that fall on the same side of all ties of E4M3 and INT4 as the correctly
/// rounded ones (tests/quotient_test.cpp goes through all scales). 1 / scale = high + low; high is rounded down, so that a −0 stays one.
struct Reciprocal {
  float high, low;

  /// Two scales of each power of two need the neighbour of what low comes to.
  __device__ static bool isSpecial(float scale) { return (~__float_as_uint(scale) & 0x3fffffu) == 0; }

  __device__ __forceinline__ explicit Reciprocal(float scale, int nudge = 0) {
    high = ptx::reciprocal(scale);
    high = __fmaf_rn(high, __fmaf_rn(-scale, high, 1.f), high);  // rounded to nearest, but for a scale of all ones
    high = __uint_as_float(__float_as_uint(high) + (__float_as_int(__fmaf_rn(-scale, high, 1.f)) >> 31));
    const float rest = __fmaf_rn(-scale, high, 1.f);
    low = __fmul_rn(rest, high);
    low = __uint_as_float(__float_as_uint(__fmaf_rn(__fmaf_rn(-scale, low, rest), high, low)) + nudge);
  }

  __device__ __forceinline__ float operator()(float x) const { return __fmaf_rn(x, high, __fmul_rn(x, low)); }
};

/// A lane's channels of a head: granules of eight, b, b + 4, …: whole RoPE pairs.
template <int kHeadDim>
struct Channels {
  static constexpr int kGranules = kHeadDim / 32, kCount = 8 * kGranules, kHalf = kCount / 2;
  float x[kCount];

  __device__ __forceinline__ explicit Channels(const uint4 (&raw)[kGranules]) {
#pragma unroll
    for (int g = 0; g < kGranules; g++) {
      const uint32_t words[4] = {raw[g].x, raw[g].y, raw[g].z, raw[g].w};
#pragma unroll
      for (int i = 0; i < 4; i++) x[8 * g + 2 * i] = lowBf16(words[i]), x[8 * g + 2 * i + 1] = highBf16(words[i]);
    }
  }

  /// `turn`: cos of the token's pairs, then sin, from the lane's first pair on.
  __device__ __forceinline__ void rotate(const float* turn) {
#pragma unroll
    for (int i = 0; i < kHalf; i += 4) {
      const float* at = turn + i / 8 * 32 + i % 8;
      const float4 cosines = *reinterpret_cast<const float4*>(at), sines = *reinterpret_cast<const float4*>(at + kHeadDim / 2);
      const float cosine[4] = {cosines.x, cosines.y, cosines.z, cosines.w}, sine[4] = {sines.x, sines.y, sines.z, sines.w};
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const float a = x[i + k], b = x[kHalf + i + k];
        x[i + k] = __fmaf_rn(a, cosine[k], -__fmul_rn(b, sine[k]));
        x[kHalf + i + k] = __fmaf_rn(b, cosine[k], __fmul_rn(a, sine[k]));
      }
    }
  }

  /// `scale`: from the lane's first channel on.
  __device__ __forceinline__ void multiply(const float* scale) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 v = __ldg(reinterpret_cast<const float4*>(scale + i / 8 * 32 + i % 8));
      x[i] = __fmul_rn(x[i], v.x), x[i + 1] = __fmul_rn(x[i + 1], v.y);
      x[i + 2] = __fmul_rn(x[i + 2], v.z), x[i + 3] = __fmul_rn(x[i + 3], v.w);
    }
  }

  /// `combine` over 0 and all channels of the head.
  template <class Combine>
  __device__ __forceinline__ float over(Combine combine) const {
    float v[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int i = 0; i < kCount; i++) v[i % 4] = combine(v[i % 4], x[i]);
    v[0] = combine(combine(v[0], v[1]), combine(v[2], v[3]));
    v[0] = combine(v[0], __shfl_xor_sync(kAllLanes, v[0], 1));
    return combine(v[0], __shfl_xor_sync(kAllLanes, v[0], 2));
  }

  template <class Combine>
  __device__ __forceinline__ float largest(Combine combine) const {
    return over([combine](float a, float b) { return combine(a, fabsf(b)); });
  }

  /// Divides by scaleOf(most / kDivisor), at least 2⁻¹²⁶. → that
  template <int kDivisor, class ScaleOf>
  __device__ __forceinline__ float divide(float most, ScaleOf scaleOf) {
    float scale = scaleOf(dividedBy<kDivisor>(most)), by = scale;
    int nudge = 0;
    if (__any_sync(kAllLanes, !isOrdinary(most) || Reciprocal::isSpecial(scale))) {
      if (!isOrdinary(most)) by = scale = scaleOf(__fdiv_rn(most, kDivisor));
      const float power = isOrdinary(scale) ? 1.f : scale < 1.f ? 0x1p100f : 0x1p-100f;
      by *= power;
#pragma unroll
      for (int i = 0; i < kCount; i++) x[i] *= power;
      if (Reciprocal::isSpecial(by)) nudge = __float_as_uint(by) & 0x400000u ? 1 : -1;
    }
    const Reciprocal reciprocal(by, nudge);
#pragma unroll
    for (int i = 0; i < kCount; i++) x[i] = reciprocal(x[i]);
    return scale;
  }
};

/// A granule's eight quotients in E4M3.
__device__ __forceinline__ uint2 packGranule(const float* x) {
  return make_uint2(ptx::packE4m3(x[0], x[1], x[2], x[3]), ptx::packE4m3(x[4], x[5], x[6], x[7]));
}

/// → the scale of a head of queries; its channels become quotients. A NaN stays one; beside an infinity all is NaN once it is scaled back.
template <int kHeadDim>
__device__ __forceinline__ float divideQuery(Channels<kHeadDim>& c) {
  const float most = c.largest(Larger());
  return c.template divide<448>(most, [most](float quotient) { return most == 0.f ? 1.f : fmaxf(quotient, 0x1p-126f); });
}

/// Divides a key or value by BF16(largest / kDivisor). → that, as its bits; NaN beside a NaN or an infinity.
template <int kDivisor, int kHeadDim>
__device__ __forceinline__ uint32_t divideByBf16(Channels<kHeadDim>& c) {
  const float most = c.largest(LargerOrNan());
  const float scale = c.template divide<kDivisor>(most, [](float quotient) {
    return fmaxf(__uint_as_float(ptx::packBf16(0.f, quotient) & 0xffff0000u), 0x1p-126f);
  });
  return most < kInfinity ? __float_as_uint(scale) >> 16 : 0x7fc0u;
}

}  // namespace fireq::store
