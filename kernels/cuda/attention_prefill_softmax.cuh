// Attention of many new tokens a sequence (attention_prefill.cuh): the softmax, in FP16, two tokens at a time. A lane has two rows
// (h = 0, 1: row and row + 8 of a warp's 16) and, of every 8 tokens, 2 (lane % 4) and one more.
//
// * y, a score as an exponent of two: q·codes · σ[key] / unit · (qScale · softmaxScale · log₂e · unit), rounded to FP16 after each factor, and
//   the sum of q·codes after each 32 channels. p = 2^(y − m).
// * p · σ[value] is what is rounded to E4M3. It is 2⁵ at the largest when m is just set, and E4M3 reaches 448: so m needs only be near a
//   row's largest y + log₂ σ, and is kept until a probability saturates. While 32 tokens' sums, each of eight, are less than 448 none has.
#pragma once
#include <cstddef>
#include <cstdint>

#include "attention_prefill_tiles.cuh"
#include "ptx.cuh"

namespace fireq::prefill {

constexpr float kLog2e = 1.4426950408889634f, kInfinity = __builtin_huge_valf();
constexpr int kScores = kKeys / 4;  // words of a lane: [i][h], tokens 8i + 2 (lane % 4) + {0, 1}
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

/// The softmax of a lane's two rows.
struct Softmax {
  float scale[2];           // on q·codes, to base-2 exponents
  float base[2], total[2];  // m − kLog2Most, in 128ths; Σ p
  uint32_t scales;          // the TileScales, at this lane's words
  // FP16, twice: y − base = q·codes · σ / unit · factor + shift, less the logarithm of the values' unit; and (that + 15) / 31.
  uint32_t factor[2], shift[2], fixedFactor[2], fixedShift[2];
  uint32_t upcoming;        // of the next tile
  float keyUnit, logValueUnit;
  uint32_t ones;            // 1 and 1

  __device__ __forceinline__ void start(const float (&qScale)[2], float softmaxScale) {
#pragma unroll
    for (int h = 0; h < 2; h++) scale[h] = qScale[h] * (softmaxScale * kLog2e / kUnit), base[h] = -kInfinity, total[h] = 0.f;
  }

  /// The next tile's units come early. address: of its scales.
  __device__ __forceinline__ void expectTile(uint32_t address) {
    upcoming = address;
    const uint4 v = ptx::loadShared16(upcoming + offsetof(TileScales, units));
    keyUnit = __uint_as_float(v.x), logValueUnit = __uint_as_float(v.y);
  }
  __device__ __forceinline__ void takeTile() {
    scales = upcoming + threadIdx.x % 4 * 16;
    setFactors(keyUnit, logValueUnit);
  }
  __device__ __forceinline__ void setFactors(float key, float logValue) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float f = ptx::minOrNan(fmaxf(scale[h] * key, 0x1p-24f), 65504.f), b = logValue - base[h];
      factor[h] = ptx::packHalf(f, f), shift[h] = ptx::packHalf(b, b);
      fixedFactor[h] = ptx::packHalf(f * kStep, f * kStep), fixedShift[h] = ptx::packHalf((b + 15) * kStep, (b + 15) * kStep);
    }
  }

  /// Two rows' largest y + log₂ (σ of the value / unit) of tokens 8 · kFrom … 8 · kTo.
  template <int kFrom, int kTo>
  __device__ __forceinline__ void most(const uint32_t (&t)[kScores], uint32_t (&found)[2]) const {
#pragma unroll
    for (int i = kFrom; i < kTo; i += 4) {
      const uint4 four = ptx::loadShared16(scales + offsetof(TileScales, logs) + i / 4 * 64);
      const uint32_t logs[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
      for (int k = 0; k < 4; k++)
#pragma unroll
        for (int h = 0; h < 2; h++) found[h] = ptx::maxHalves(found[h], ptx::multiplyAddHalves(t[2 * (i + k) + h], factor[h], logs[k]));
    }
  }

  /// Sets m by the largest of the tile so far. → what that does to earlier sums.
  __device__ __forceinline__ void raise(const uint32_t (&found)[2], float (&shrink)[2]) {
    const uint4 units = ptx::loadShared16(scales + offsetof(TileScales, units));
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float2 both = ptx::unpackHalf(found[h]);
      const float wanted = rintf((overQuad(fmaxf(both.x, both.y)) + __uint_as_float(units.y) - kLog2Most) * 128) / 128;
      const float now = fmaxf(base[h], fminf(fmaxf(wanted, -60000.f), 60000.f));
      shrink[h] = ptx::exp2Fast(base[h] - now);
      base[h] = now, total[h] *= shrink[h];
    }
    setFactors(__uint_as_float(units.x), __uint_as_float(units.y));
  }

  /// 2^(t · factor + shift)
  template <bool kPolynomial>
  __device__ __forceinline__ uint32_t exponential(uint32_t t, int h) const {
    if constexpr (!kPolynomial) return ptx::exp2FastHalves(ptx::multiplyAddHalves(t, factor[h], shift[h]));
    // In [32, 64) FP16 has 5 bits behind the point: the whole part becomes the exponent, those the mantissa. 1 + f is up to 6 % more
    // than 2^f; the polynomial of x = 1 + f is 2^f / x (to 0.4 %). From 2⁻¹⁵ down it is 0, from 2¹⁶ on infinity.
    const uint32_t fixed = ptx::multiplyAddHalves(ptx::multiplyAddHalvesSaturated(t, fixedFactor[h], fixedShift[h]), 0x4fc04fc0u, 0x50005000u);  // · 31 + 32
    const uint32_t linear = fixed * 32 - 0x000a0000u;
    const uint32_t x = linear & 0x03ff03ffu | ones;
    return ptx::multiplyHalvesRounded(linear, ptx::multiplyAddHalves(ptx::multiplyAddHalves(x, 0x337b337bu, 0xb98eb98eu), x, 0x3dd43dd4u));  // · 2^(x − 1) / x
  }

  /// Scales scores by their keys' σ if they aren't yet. sums: of probabilities times the values' unit, tokens of e = 0 and of e = 1.
  template <int kFrom, int kTo, bool kScale>
  __device__ __forceinline__ void exponentiate(uint32_t (&s)[kScores], uint32_t (&p)[4][4], uint32_t (&sums)[2][2]) const {
#pragma unroll
    for (int i = kFrom; i < kTo; i += 2) {
      const uint4 pairs = ptx::loadShared16(scales + i / 2 * 64);
#pragma unroll
      for (int h = 0; h < 2; h++) {
        if constexpr (kScale) s[2 * i + h] = ptx::multiplyHalvesRounded(s[2 * i + h], pairs.x), s[2 * i + 2 + h] = ptx::multiplyHalvesRounded(s[2 * i + 2 + h], pairs.y);
        // The MUFU has a quarter less to do: it would be as busy as the tensor cores.
        const uint32_t a = exponential<false>(s[2 * i + h], h), b = h == 0 ? exponential<false>(s[2 * i + 2], 0) : exponential<true>(s[2 * i + 3], 1);
        uint32_t& sum = sums[i / 8][h];
        sum = i % 8 == 0 ? ptx::addHalves(a, b) : ptx::addHalves(ptx::addHalves(sum, a), b);
        p[i / 4][i % 4 + h] = ptx::halvesToE4m3(ptx::multiplyHalvesRounded(a, pairs.z), ptx::multiplyHalvesRounded(b, pairs.w));
      }
    }
  }
  template <bool kScale>
  __device__ __forceinline__ void exponentiate(uint32_t (&s)[kScores], uint32_t (&p)[4][4], uint32_t (&sums)[2][2], bool whole) const {
    exponentiate<0, kKeys / 16, kScale>(s, p, sums);
    if (whole) {
      exponentiate<kKeys / 16, kKeys / 8, kScale>(s, p, sums);
    } else {
#pragma unroll
      for (int j = 0; j < 8; j++) p[2 + j / 4][j % 4] = 0;
      sums[1][0] = sums[1][1] = 0;
    }
  }

  __device__ __forceinline__ void count(const uint32_t (&sums)[2][2]) {
    const float reciprocalValueUnit = ptx::loadSharedFloat(scales + offsetof(TileScales, units) + 8);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float2 both = ptx::unpackHalf(ptx::addHalves(sums[0][h], sums[1][h]));
      total[h] = __fmaf_rn(both.x + both.y, reciprocalValueUnit, total[h]);
    }
  }

  /// Scores → probabilities as operands of four steps of 32 tokens, m and the sums along with them. whole: not its first half alone.
  /// → whether m is another one now: what the tensor cores have summed up with the former one is to be multiplied, by the two rows' factors
  /// in shared memory at `factors`, once they have ended.
  __device__ __forceinline__ bool go(uint32_t (&s)[kScores], uint32_t (&p)[4][4], bool whole, uint32_t factors) {
    uint32_t sums[2][2];
    exponentiate<true>(s, p, sums, whole);
    const auto atLeast = [&](uint32_t rest) {  // whether a sum is: 0x8000 less its FP16 bits
      return ((sums[0][0] + rest) | (sums[0][1] + rest) | (sums[1][0] + rest) | (sums[1][1] + rest)) & 0x80008000u;
    };
    const bool suspicious = __any_sync(~0u, atLeast(0x21002100u));  // 448, and NaN
    const float former[2] = {total[0], total[1]};
    count(sums);
    if (!suspicious) return false;
    uint32_t high = atLeast(0x08000800u);  // 2¹⁵
#pragma unroll
    for (int j = 0; j < 16; j++) high |= (p[j / 4][j % 4] + 0x02020202u) & 0x80808080u;  // of 448 and NaN it sets the highest bit
    if (!__any_sync(~0u, high)) return false;
    total[0] = former[0], total[1] = former[1];
    uint32_t found[2] = {0xfc00fc00u, 0xfc00fc00u};
    most<0, kKeys / 16>(s, found);
    if (whole) most<kKeys / 16, kKeys / 8>(s, found);
    float shrink[2];
    raise(found, shrink);
    ptx::storeShared8(factors, __float_as_uint(shrink[0]), __float_as_uint(shrink[1]));  // in registers there is no room
    exponentiate<false>(s, p, sums, whole);
    count(sums);
    return true;
  }

  /// The same of the first tile, which sets m.
  __device__ __forceinline__ void begin(uint32_t (&s)[kScores], uint32_t (&p)[4][4]) {
    uint32_t found[2] = {0xfc00fc00u, 0xfc00fc00u}, sums[2][2];
    float shrink[2];
#pragma unroll
    for (int i = 0; i < kKeys / 8; i += 2) {
      const uint2 keys = ptx::loadShared8(scales + i / 2 * 64);
#pragma unroll
      for (int h = 0; h < 2; h++) s[2 * i + h] = ptx::multiplyHalvesRounded(s[2 * i + h], keys.x), s[2 * i + 2 + h] = ptx::multiplyHalvesRounded(s[2 * i + 2 + h], keys.y);
    }
    most<0, kKeys / 8>(s, found);
    raise(found, shrink);
    exponentiate<false>(s, p, sums, true);
    count(sums);
  }
};

/// −∞ for tokens 8 · kFrom … 8 · kTo of a tile that a row doesn't see. first: how many of its tokens the lane's first row sees, less its
/// 2 (lane % 4).
template <int kFrom, int kTo>
__device__ __forceinline__ void mask(uint32_t (&s)[kScores], int first) {
  uint32_t seen[2];  // by h; of e = 0 and 1
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int tokens = max(-256, min(first + 8 * h, 256));
    seen[h] = ptx::packHalf(tokens, tokens - 1);
  }
#pragma unroll
  for (int j = 2 * kFrom; j < 2 * kTo; j++) {
    const uint32_t sees = ptx::whereGreaterHalves(seen[j % 2], ptx::packHalf(j / 2 * 8, j / 2 * 8));
    s[j] = s[j] & sees | ~sees & 0xfc00fc00u;
  }
}

}  // namespace fireq::prefill
