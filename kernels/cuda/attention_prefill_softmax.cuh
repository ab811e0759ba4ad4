// Attention of many new tokens a sequence (attention_prefill.cuh): the softmax, in FP16, two tokens at a time. A lane has two rows
// (h = 0, 1: row and row + 8 of a warp's 16) and, of every 8 tokens, 2 (lane % 4) and one more.
//
// * y, a score as an exponent of two: q·codes · σ[key] / unit · (qScale · softmaxScale · log₂e · unit), rounded to FP16 after each factor: an
//   error of |y| · 2⁻¹⁰ at most. p = 2^(y − m).
// * p · σ[value] is what is rounded to E4M3. It is 2⁵ at the largest when m is just set, and E4M3 reaches 448: so m needs only be near a
//   row's largest y + log₂ σ, and is kept until a probability saturates. While eight tokens' sum is less than 448 none has.
#pragma once
#include <cstddef>
#include <cstdint>

#include "attention_prefill_tiles.cuh"
#include "ptx.cuh"
#include "wgmma.cuh"

namespace fireq::prefill {

constexpr float kLog2e = 1.4426950408889634f, kInfinity = __builtin_huge_valf();
constexpr int kHalf = kKeys / 2, kScores = kHalf / 2;  // of a lane: [i][h][e], token 8i + 2 (lane % 4) + e of half a tile
constexpr float kLog2Most = 5.f;
constexpr float kStep = 1.f / 31;

__device__ __forceinline__ float overQuad(float v) {
  v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
  return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}
__device__ __forceinline__ float sumOverQuad(float v) {
  v += __shfl_xor_sync(~0u, v, 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}

/// The softmax of a lane's two rows, of half a tile of 64 tokens at a time.
struct Softmax {
  float scale[2];            // on q·codes, to base-2 exponents
  float base[2], total[2];   // m − kLog2Most, in 128ths; Σ p
  float shrink[2];           // what raise has done to earlier sums
  uint32_t scales;           // the TileScales, at this lane's words
  // FP16, twice: y − base = q·codes · σ / unit · factor + shift, less the logarithm of the values' unit; and (that + 15) / 31.
  uint32_t factor[2], shift[2], fixedFactor[2], fixedShift[2];

  __device__ __forceinline__ void start(const float (&qScale)[2], float softmaxScale) {
#pragma unroll
    for (int h = 0; h < 2; h++) scale[h] = qScale[h] * (softmaxScale * kLog2e / kUnit), base[h] = -kInfinity, total[h] = 0.f;
  }

  /// Another tile; address: of its scales.
  __device__ __forceinline__ void takeTile(uint32_t address) {
    scales = address + threadIdx.x % 4 * 16;
    setFactors();
  }
  /// {of the keys, log₂ of the values', 1 / the values', nothing}
  __device__ __forceinline__ float4 units() const {
    const uint4 v = ptx::loadShared16(scales + offsetof(TileScales, units));
    return {__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), 0.f};
  }
  __device__ __forceinline__ void setFactors() {
    const float keyUnit = units().x, logValueUnit = units().y;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float f = ptx::minOrNan(fmaxf(scale[h] * keyUnit, 0x1p-24f), 65504.f), b = logValueUnit - base[h];
      factor[h] = ptx::packHalf(f, f), shift[h] = ptx::packHalf(b, b);
      fixedFactor[h] = ptx::packHalf(f * kStep, f * kStep), fixedShift[h] = ptx::packHalf((b + 15) * kStep, (b + 15) * kStep);
    }
  }

  /// q·codes · σ / unit of tokens 8i … 8i + 15.
  template <int kPart>
  __device__ __forceinline__ void scaleKeys(const float (&s)[kScores], uint32_t (&t)[kScores / 2], int i, const uint4& pairs) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      t[2 * i + h] = ptx::multiplyHalvesRounded(ptx::packHalf(s[4 * i + 2 * h], s[4 * i + 2 * h + 1]), pairs.x);
      t[2 * i + 2 + h] = ptx::multiplyHalvesRounded(ptx::packHalf(s[4 * i + 4 + 2 * h], s[4 * i + 5 + 2 * h]), pairs.y);
    }
  }
  template <int kPart>
  __device__ __forceinline__ void scaleKeys(const float (&s)[kScores], uint32_t (&t)[kScores / 2]) const {
#pragma unroll
    for (int i = 0; i < kHalf / 8; i += 2) scaleKeys<kPart>(s, t, i, pairsAt<kPart>(i));
  }
  template <int kPart>
  __device__ __forceinline__ uint4 pairsAt(int i) const { return ptx::loadShared16(scales + (kPart * kHalf / 16 + i / 2) * 64); }

  /// Two rows' largest y + log₂ (σ of the value / unit).
  template <int kPart>
  __device__ __forceinline__ void most(const uint32_t (&t)[kScores / 2], uint32_t (&found)[2]) const {
#pragma unroll
    for (int i = 0; i < kHalf / 8; i += 4) {
      const uint4 four = ptx::loadShared16(scales + offsetof(TileScales, logs) + (kPart * kHalf / 32 + i / 4) * 64);
      const uint32_t logs[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int h = 0; h < 2; h++) found[h] = ptx::maxHalves(found[h], ptx::multiplyAddHalves(t[2 * (i + k) + h], factor[h], logs[k]));
    }
  }

  /// Sets m by the largest of the tile so far. shrink: what that does to earlier sums.
  __device__ __forceinline__ void raise(const uint32_t (&found)[2]) {
    const float logValueUnit = units().y;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float2 both = ptx::unpackHalf(found[h]);
      const float wanted = rintf((overQuad(fmaxf(both.x, both.y)) + logValueUnit - kLog2Most) * 128) / 128;
      const float now = fmaxf(base[h], fminf(fmaxf(wanted, -60000.f), 60000.f));
      shrink[h] = ptx::exp2Fast(base[h] - now);
      base[h] = now, total[h] *= shrink[h];
    }
    setFactors();
  }

  /// → sums of probabilities times the values' unit, tokens of e = 0 and of e = 1.
  template <int kPart, bool kScale>
  __device__ __forceinline__ void exponentiate(const float (&s)[kScores], uint32_t (&t)[kScores / 2], uint32_t (&p)[2][4], uint32_t (&sums)[2]) const {
#pragma unroll
    for (int i = 0; i < kHalf / 8; i += 2) {
      const uint4 pairs = pairsAt<kPart>(i);
      if constexpr (kScale) scaleKeys<kPart>(s, t, i, pairs);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        // The MUFU has a quarter less to do: it would be as busy as the tensor cores.
        const uint32_t a = exponential<false>(t[2 * i + h], h), b = h == 0 ? exponential<false>(t[2 * i + 2], 0) : exponential<true>(t[2 * i + 3], 1);
        sums[h] = i == 0 ? ptx::addHalves(a, b) : ptx::addHalves(ptx::addHalves(sums[h], a), b);
        p[i / 4][i % 4 + h] = ptx::halvesToE4m3(ptx::multiplyHalvesRounded(a, pairs.z), ptx::multiplyHalvesRounded(b, pairs.w));
      }
    }
  }
  /// 2^(t · factor + shift)
  template <bool kPolynomial>
  __device__ __forceinline__ uint32_t exponential(uint32_t t, int h) const {
    if constexpr (!kPolynomial) return ptx::exp2FastHalves(ptx::multiplyAddHalves(t, factor[h], shift[h]));
    // In [32, 64) FP16 has 5 bits behind the point: the whole part becomes the exponent, those the mantissa. 1 + f is up to 6 % more
    // than 2^f; the polynomial of x = 1 + f is 2^f / x (to 0.4 %). From 2⁻¹⁵ down it is 0, from 2¹⁶ on infinity.
    const uint32_t fixed = ptx::multiplyAddHalves(ptx::multiplyAddHalvesSaturated(t, fixedFactor[h], fixedShift[h]), 0x4fc04fc0u, 0x50005000u);  // · 31 + 32
    const uint32_t linear = fixed * 32 - 0x000a0000u;  // what the lower half's exponent brings to the upper half
    const uint32_t x = (linear & 0x03ff03ffu) | 0x3c003c00u;
    const uint32_t correction = ptx::multiplyAddHalves(ptx::multiplyAddHalves(x, 0x337b337bu, 0xb98eb98eu), x, 0x3dd43dd4u);
    return ptx::multiplyHalvesRounded(linear, correction);
  }

  __device__ __forceinline__ void count(const uint32_t (&sums)[2]) {
    const float reciprocalValueUnit = units().z;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float2 both = ptx::unpackHalf(sums[h]);
      total[h] = __fmaf_rn(both.x + both.y, reciprocalValueUnit, total[h]);
    }
  }

  /// Scores → probabilities as operands of two steps of 32 tokens, m and the sums along with them. → whether earlier sums are to be
  /// shrunk (the whole warp alike).
  template <int kPart>
  __device__ __forceinline__ bool go(const float (&s)[kScores], uint32_t (&p)[2][4]) {
    uint32_t t[kScores / 2], sums[2];
    exponentiate<kPart, true>(s, t, p, sums);
    bool wrong = false;
    // 448 and more, and NaN: 0x5f00 and above.
    if (__any_sync(~0u, ((sums[0] + 0x21002100u) | (sums[1] + 0x21002100u)) & 0x80008000u)) {
      uint32_t high = ((sums[0] + 0x08000800u) | (sums[1] + 0x08000800u)) & 0x80008000u;  // 2¹⁵
#pragma unroll
      for (int j = 0; j < 8; j++) high |= (p[j / 4][j % 4] + 0x02020202u) & 0x80808080u;  // of 448 and NaN it sets the highest bit
      wrong = __any_sync(~0u, high);
      if (wrong) {
        uint32_t found[2] = {0xfc00fc00u, 0xfc00fc00u};
        most<kPart>(t, found);
        raise(found);
        exponentiate<kPart, false>(s, t, p, sums);
      }
    }
    count(sums);
    return wrong;
  }

  /// The same of the first half of all, which sets m.
  __device__ __forceinline__ void begin(const float (&s)[kScores], uint32_t (&p)[2][4]) {
    uint32_t found[2] = {0xfc00fc00u, 0xfc00fc00u}, t[kScores / 2], sums[2];
    scaleKeys<0>(s, t);
    most<0>(t, found);
    raise(found);
    exponentiate<0, false>(s, t, p, sums);
    count(sums);
  }
};

/// −∞ for tokens that a row doesn't see. first: tokens from the half's start on that the lane's first row sees, less its 2 (lane % 4).
__device__ __forceinline__ void mask(float (&s)[kScores], int first) {
#pragma unroll
  for (int j = 0; j < kScores; j++)
    if (8 * (j / 4) + j % 2 >= first + j / 2 % 2 * 8) s[j] = -kInfinity;
}

}  // namespace fireq::prefill
