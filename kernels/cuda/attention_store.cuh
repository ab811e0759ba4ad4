// What attention needs of a new token, in one pass over the QKV projection's output: RoPE, post-RoPE scaling, queries in E4M3
// with a scale a token and head, keys and values in INT4 into the token's slot of the paged cache (kv_layout.cuh).
//
// * rope: the pair (i, i + 64) is rotated by the angle position · inverseFrequencies[i], rounded to FP32; Llama 3.1's scaling
//   is in the frequencies. a' = fma(a, cos, −(b · sin)), b' = fma(b, cos, a · sin), cos and sin correctly rounded.
// * scaling: keys times keyScale, queries times queryScale (its inverse), per channel of a key-value head.
// * rounding as the ops quantizeFp8 and storeKv define it (packages/kernels); nothing is rounded to BF16 in between.
//
// Eight lanes have a head: lane a holds channels 8a … 8a + 7 and 64 more, so that a lane has whole pairs. A warp keeps its four heads
// from token to token, with the next two tokens on their way.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"
#include "quantize.cuh"

namespace fireq {

struct AttentionStoreParams {
  const uint16_t* qkv;              // BF16 [tokens, (queryHeads + 2 · keyHeads) · 128]: queries, keys, values
  const int32_t* positions;         // [tokens]
  const int32_t* slots;             // [tokens]: page · 64 + place in the page; negative: the token isn't stored
  const float* inverseFrequencies;  // [64]
  const float* keyScale;            // [keyHeads, 128], or null: no post-RoPE scaling
  const float* queryScale;          // [keyHeads, 128]: 1 / keyScale
  uint8_t* q;                       // E4M3 [tokens, queryHeads, 128]
  float* qScale;                    // [tokens, queryHeads]
  uint8_t* cache;                   // [pages, keyHeads, kKvPageBytes]
  int tokens, queryHeads, keyHeads;
  int tokensPerBlock;               // that follow each other
};

namespace store {

constexpr int kWarps = 12, kLanes = 8, kHeadsPerBlock = kWarps * 32 / kLanes, kPairs = kHeadDim / 2;
constexpr int kTurned = kWarps * 32 / kPairs;  // tokens whose angles a block computes at once
static_assert(kTurned % 2 == 0, "tokens are taken in twos");
constexpr float kInfinity = __builtin_huge_valf(), kNan = __builtin_nanf("");

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

__device__ __forceinline__ float maxNan(float a, float b) {
  float v;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
  return v;
}
__device__ __forceinline__ float minNan(float a, float b) {
  float v;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(a), "f"(b));
  return v;
}

/// The eight lanes of this lane's head.
__device__ __forceinline__ uint32_t headMask() { return 0xffu << (threadIdx.x % 32 / kLanes * kLanes); }

template <class Combine>
__device__ __forceinline__ float overHead(float v, Combine combine) {
#pragma unroll
  for (int other = 1; other < kLanes; other *= 2) v = combine(v, __shfl_xor_sync(headMask(), v, other));
  return v;
}

/// A lane's sixteen channels of a head.
struct Channels {
  float x[16];

  __device__ __forceinline__ Channels(const uint4& low, const uint4& high) {
    const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) x[2 * i] = lowBf16(words[i]), x[2 * i + 1] = highBf16(words[i]);
  }

  __device__ __forceinline__ void rotate(const float (&cosine)[8], const float (&sine)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float a = x[i], b = x[8 + i];
      x[i] = __fmaf_rn(a, cosine[i], -__fmul_rn(b, sine[i]));
      x[8 + i] = __fmaf_rn(b, cosine[i], __fmul_rn(a, sine[i]));
    }
  }

  /// `scale`: of the lane's first channel.
  __device__ __forceinline__ void multiply(const float* scale) {
#pragma unroll
    for (int i = 0; i < 16; i += 4) {
      const float4 v = __ldg(reinterpret_cast<const float4*>(scale + i / 8 * kPairs + i % 8));
      x[i] = __fmul_rn(x[i], v.x), x[i + 1] = __fmul_rn(x[i + 1], v.y);
      x[i + 2] = __fmul_rn(x[i + 2], v.z), x[i + 3] = __fmul_rn(x[i + 3], v.w);
    }
  }

  /// By a finite scale, at least 2⁻¹²⁶. A small one would lose the remainders: both go up by a power of two.
  __device__ __forceinline__ void divide(float scale) {
    if (scale < 0x1p-90f) {
      scale *= 0x1p100f;
#pragma unroll
      for (int i = 0; i < 16; i++) x[i] *= 0x1p100f;
    }
    const Divisor by(scale);
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = by.divide(x[i]);
  }
};

/// → E4M3, and its scale. A NaN stays one; beside an infinity all is NaN once it is scaled back.
__device__ __forceinline__ void storeQuery(const AttentionStoreParams& p, Channels& c, size_t row) {
  const int lane = threadIdx.x % kLanes;
  float most = 0.f;
#pragma unroll
  for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(c.x[i]));
  most = overHead(most, [](float a, float b) { return fmaxf(a, b); });
  const float scale = most == 0.f ? 1.f : fmaxf(__fdiv_rn(most, 448.f), 0x1p-126f);
  c.divide(scale);
  uint32_t bytes[4];
#pragma unroll
  for (int i = 0; i < 4; i++) bytes[i] = packE4m3(c.x[4 * i], c.x[4 * i + 1]) | packE4m3(c.x[4 * i + 2], c.x[4 * i + 3]) << 16;
  uint8_t* to = p.q + row * kHeadDim + lane * 8;
  *reinterpret_cast<uint2*>(to) = make_uint2(bytes[0], bytes[1]);
  *reinterpret_cast<uint2*>(to + kPairs) = make_uint2(bytes[2], bytes[3]);
  if (lane == 0) p.qScale[row] = scale;
}

/// Turns a head into codes 0…15. → its half of the token's scale word.
template <ScaleFormat kFormat>
__device__ __forceinline__ uint32_t round(Channels& c, uint32_t (&codes)[16]) {
  float scale, zero = 8.f;
  uint32_t word;
  bool finite;
  if constexpr (kFormat == ScaleFormat::kBf16Symmetric) {
    float most = 0.f;
#pragma unroll
    for (int i = 0; i < 16; i++) most = maxNan(most, fabsf(c.x[i]));
    most = overHead(most, maxNan);
    finite = most < kInfinity;
    scale = fmaxf(__uint_as_float(ptx::packBf16(0.f, __fdiv_rn(most, 7.f)) & 0xffff0000u), 0x1p-126f);
    word = __float_as_uint(scale) >> 16;
  } else {
    float low = 0.f, high = 0.f;
#pragma unroll
    for (int i = 0; i < 16; i++) low = minNan(low, c.x[i]), high = maxNan(high, c.x[i]);
    low = overHead(low, minNan), high = overHead(high, maxNan);
    const float range = __fsub_rn(high, low);
    finite = range < kInfinity;
    const uint32_t byte = max(packE4m3(__fdiv_rn(range, 15.f), 0.f) & 0xffu, 1u);  // positive numbers order as their bytes
    uint32_t halves;
    asm("{.reg .b16 b;\ncvt.u16.u32 b, %1;\ncvt.rn.f16x2.e4m3x2 %0, b;\n}" : "=r"(halves) : "r"(byte));
    scale = ptx::unpackHalf(halves).x;
    zero = rintf(fminf(__fdiv_rn(-low, scale), 15.f));
    word = byte | static_cast<uint32_t>(zero) << 8;
  }
  if (!finite) scale = 1.f, word = kFormat == ScaleFormat::kBf16Symmetric ? 0x7fc0u : 0x007fu;  // NaN
  c.divide(scale);
  // Adding 1.5 · 2²³ rounds to a whole number, and leaves it in the low bits.
  const uint32_t shift = static_cast<uint32_t>(zero);
#pragma unroll
  for (int i = 0; i < 16; i++) codes[i] = __float_as_uint(fminf(fmaxf(c.x[i], -zero), 15.f - zero) + 12582912.f) + shift & 15u;
  return word;
}

/// A token's row of keys: eight lanes' codes, by word 4l + s, nibble 4e + j: channel 8 (4s + j) + 2l + e. Lane a has s = a / 4
/// and two more, and j = a % 4: the four lanes of a word give a nibble of each half.
__device__ __forceinline__ void storeKey(const uint32_t (&codes)[16], uint8_t* row) {
  const int lane = threadIdx.x % kLanes, j = lane % 4;
  uint32_t words[2][4];  // s, l
#pragma unroll
  for (int i = 0; i < 8; i++) words[i / 4][i % 4] = (codes[2 * i] | codes[2 * i + 1] << 16) << 4 * j;
  const auto meet = [](uint32_t mine, uint32_t others, bool swap, int other) {
    return (swap ? others : mine) | __shfl_xor_sync(headMask(), swap ? mine : others, other);
  };
  uint32_t halves[2][2], own[2];
#pragma unroll
  for (int s = 0; s < 2; s++) {
#pragma unroll
    for (int l = 0; l < 2; l++) halves[s][l] = meet(words[s][l], words[s][2 + l], j & 2, 2);
    own[s] = meet(halves[s][0], halves[s][1], j & 1, 1);  // l = j
  }
  const bool upper = lane >= 4;
  const uint32_t got = __shfl_xor_sync(headMask(), upper ? own[0] : own[1], 4);
  reinterpret_cast<uint2*>(row)[2 * j + upper] = upper ? make_uint2(got, own[1]) : make_uint2(own[0], got);
}

/// A token's values: two bytes of 32 words. Lane a has nibbles a / 4 and two more of the words with c = a % 4; it stores those
/// with n % 2 = a / 4, so that eight lanes fill the token's part of a sector.
__device__ __forceinline__ void storeValue(const uint32_t (&codes)[16], uint8_t* values, int token) {
  const int lane = threadIdx.x % kLanes, c = lane % 4, upper = lane / 4;
  uint32_t pieces[2][2];  // n % 2, n / 4: n / 2 % 2 picks the half
#pragma unroll
  for (int odd = 0; odd < 2; odd++)
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const int n = 4 * k + odd;
      pieces[odd][k] = (codes[n] | codes[8 + n] << 8 | codes[n + 2] << 16 | codes[8 + n + 2] << 24) << 4 * upper;
    }
  const int l = token % 8 / 2;
  uint8_t* to = values + (token / 8 * 4 + l) * 128 + c * 4 + token % 2 * 2;
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const uint32_t both = (upper ? pieces[1][k] : pieces[0][k]) | __shfl_xor_sync(headMask(), upper ? pieces[0][k] : pieces[1][k], 4);
#pragma unroll
    for (int half = 0; half < 2; half++)
      *reinterpret_cast<uint16_t*>(to + ((4 * k + 2 * half + upper) ^ 2 * l) * 16) = static_cast<uint16_t>(both >> 16 * half);
  }
}

}  // namespace store

/// grid: tokens / tokensPerBlock, heads (queries', keys' and values') / kHeadsPerBlock, both rounded up; 384 threads.
template <ScaleFormat kFormat>
__device__ __forceinline__ void attentionStore(const AttentionStoreParams& p) {
  using namespace store;
  __shared__ __align__(16) float turns[2][kTurned][2][kPairs];  // by turn: cos, sin
  const int thread = threadIdx.x, lane = thread % kLanes, heads = p.queryHeads + 2 * p.keyHeads;
  const int head = blockIdx.y * kHeadsPerBlock + thread / kLanes, keyHead = head - p.queryHeads, valueHead = keyHead - p.keyHeads;
  const bool isQuery = keyHead < 0, isValue = valueHead >= 0, exists = head < heads;
  const int first = blockIdx.x * p.tokensPerBlock, end = min(first + p.tokensPerBlock, p.tokens);
  const float* const scales = isQuery ? p.queryScale : p.keyScale;
  const float* const scale = scales == nullptr ? nullptr : scales + (isQuery ? head / (p.queryHeads / p.keyHeads) : keyHead) * kHeadDim + lane * 8;
  ptx::launchDependents();
  ptx::waitForPrevious();

  uint4 ahead[2][2];
  int slots[2];
  const uint4* const row = reinterpret_cast<const uint4*>(p.qkv) + head * (kHeadDim / 8) + lane;
  const auto fetch = [&](int k, int token) {
    if (token >= end || !exists) return;
    const uint4* from = row + static_cast<size_t>(token) * heads * (kHeadDim / 8);
    ahead[k][0] = __ldcs(from), ahead[k][1] = __ldcs(from + kLanes), slots[k] = __ldg(p.slots + token);
  };
  fetch(0, first), fetch(1, first + 1);
  uint8_t* const keyPage = p.cache + (isValue ? valueHead : keyHead) * kKvPageBytes;
  int buffer = 0;
  for (int chunk = first; chunk < end; chunk += kTurned, buffer ^= 1) {
    const int turned = thread / kPairs;
    if (chunk + turned < end) {
      const float position = static_cast<float>(__ldg(p.positions + chunk + turned));
      const float2 turn = rotation(__fmul_rn(position, __ldg(p.inverseFrequencies + thread % kPairs)));
      turns[buffer][turned][0][thread % kPairs] = turn.x, turns[buffer][turned][1][thread % kPairs] = turn.y;
    }
    __syncthreads();
#pragma unroll 1
    for (int pair = 0; pair < kTurned; pair += 2)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const int token = chunk + pair + k;
        if (token >= end || !exists) break;
        Channels c(ahead[k][0], ahead[k][1]);
        const int slot = slots[k];
        fetch(k, token + 2);
        if (!isValue) {
          float cosine[8], sine[8];
#pragma unroll
          for (int i = 0; i < 8; i += 4) {
            *reinterpret_cast<float4*>(cosine + i) = *reinterpret_cast<const float4*>(&turns[buffer][pair + k][0][lane * 8 + i]);
            *reinterpret_cast<float4*>(sine + i) = *reinterpret_cast<const float4*>(&turns[buffer][pair + k][1][lane * 8 + i]);
          }
          c.rotate(cosine, sine);
          if (scale != nullptr) c.multiply(scale);
        }
        if (isQuery) {
          storeQuery(p, c, static_cast<size_t>(token) * p.queryHeads + head);
          continue;
        }
        if (slot < 0) continue;
        const int place = slot % kPageTokens, inBlock = place % kKvBlockTokens;
        uint8_t* const block = keyPage + static_cast<size_t>(slot / kPageTokens) * p.keyHeads * kKvPageBytes + place / kKvBlockTokens * kKvBlockBytes;
        uint32_t codes[16];
        const uint32_t word = round<kFormat>(c, codes);
        if (lane == 0) *reinterpret_cast<uint16_t*>(block + kKvScales + inBlock * 4 + (isValue ? 2 : 0)) = static_cast<uint16_t>(word);
        if (isValue)
          storeValue(codes, block + kKvValues, inBlock);
        else
          storeKey(codes, block + inBlock * (kHeadDim / 2));
      }
  }
}

}  // namespace fireq
