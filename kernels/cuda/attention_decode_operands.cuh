// What attention_decode multiplies: blocks of the cache as operands of mma m16n8k16, for each format of the cache.
#pragma once
#include <cstdint>

#include "kv_layout.cuh"
#include "ptx.cuh"

namespace fireq::decode {

constexpr int kKeys = kKvBlockTokens / 8;  // keys of a block that a lane has scores of

/// INT4: nibble j of each half of a word, as FP16: kLowUnit for j = 0, 2, kHighUnit for 1, 3.
template <int kNibble>
__device__ __forceinline__ uint32_t codes(uint32_t word) {
  return (kNibble < 2 ? word : word >> 8) & (kNibble % 2 ? 0x00f000f0u : 0x000f000fu);
}
struct TokenScale {
  float key, keyZero, value;
};

template <KvFormat kFormat>
__device__ __forceinline__ TokenScale unpackScale(uint32_t word) {
  if constexpr (kFormat == KvFormat::kInt4Asymmetric) {
    const float2 scales = ptx::unpackHalf(ptx::e4m3ToHalves(ptx::permute(word, 0, 0x4420)));
    return {scales.x, __uint_as_float(ptx::permute(word, 0x4b000000u, 0x7541)) - 0x1p23f, scales.y};  // 2²³ has ones as its lowest bits
  } else
    return {__uint_as_float(word << 16), 8.f, __uint_as_float(word & 0xffff0000u)};
}

/// 32 tokens of one key-value head in shared memory.
template <class Layout>
struct Block {
  static constexpr KvFormat kFormat = Layout::kFormat;
  static constexpr int kHeadDim = Layout::kHeadDim, kSteps = kHeadDim / 16;
  static constexpr bool kBf16 = kFormat == KvFormat::kBf16;
  // Words of a token's keys, or of two tokens' values, that a lane reads at once, and how often to have them all.
  static constexpr int kWords = Layout::kIsInt4 ? kHeadDim / 32 : 4, kReads = kHeadDim * Layout::kCodeBits / 128 / kWords;
  // What a product of 1 and 1 is in units of the result.
  static constexpr float kUnit = Layout::kIsInt4 ? kLowUnit : 1.f;

  struct alignas(4 * kWords) Words {
    uint32_t w[kWords];
  };
  uint8_t bytes[Layout::kBlockBytes];

  __device__ __forceinline__ Words keys(int i, int read) const {  // tokens 8i + lane / 4
    return reinterpret_cast<const Words*>(bytes)[(read * kKeys + i) * 32 + threadIdx.x % 32];
  }
  __device__ __forceinline__ Words values(int i, int read) const {  // tokens 8i + 2l + {0, 1}
    const int l = threadIdx.x % 4, n = threadIdx.x % 32 / 4;
    return reinterpret_cast<const Words*>(bytes + Layout::kValues)[(i * kReads + read) * 32 + l * 8 + (n ^ 2 * l)];
  }
  __device__ __forceinline__ const uint32_t* scales() const { return reinterpret_cast<const uint32_t*>(bytes + Layout::kScales); }

  /// The channel, of l = lane % 4 and half 0 or 1, that products of keys take at step s; the next one is beside it.
  static __device__ __forceinline__ int channel(int s, int half, int l) {
    if constexpr (Layout::kIsInt4) return 16 * s + 8 * half + 2 * l;
    constexpr int kPiece = kBf16 ? 2 : 4;  // steps of a piece of 64 bytes
    return s / kPiece * 16 * kPiece + 4 * kPiece * l + 4 * (s % kPiece) + 2 * half;
  }

  /// Of INT4, the factor by which the second half of a step's codes is too large.
  static constexpr bool kSecondHalfHigh = Layout::kIsInt4;

  /// Adds K·qᵀ of 16 tokens, from 16 · pair on, to kTiles results of 8 queries: each has two sums, so that products wait less for each
  /// other.
  template <int kTiles, class Queries>
  __device__ __forceinline__ void multiplyKeys(int pair, const Queries (&queries)[kTiles], float (&dot)[kTiles][2][4]) const {
#pragma unroll
    for (int read = 0; read < kReads; read++) {
      const Words a = keys(2 * pair, read), b = keys(2 * pair + 1, read);
      if constexpr (Layout::kIsInt4) {
#pragma unroll
        for (int s = 0; s < kWords; s++)
#pragma unroll
          for (int n = 0; n < kTiles; n++) {
            ptx::multiply<false>(dot[n][0], codes<0>(a.w[s]), codes<0>(b.w[s]), codes<1>(a.w[s]), codes<1>(b.w[s]), queries[n].q[2 * s]);
            ptx::multiply<false>(dot[n][1], codes<2>(a.w[s]), codes<2>(b.w[s]), codes<3>(a.w[s]), codes<3>(b.w[s]), queries[n].q[2 * s + 1]);
          }
      } else if constexpr (kBf16) {
#pragma unroll
        for (int u = 0; u < 2; u++)
#pragma unroll
          for (int n = 0; n < kTiles; n++) ptx::multiply<true>(dot[n][u % 2], a.w[2 * u], b.w[2 * u], a.w[2 * u + 1], b.w[2 * u + 1], queries[n].q[2 * read + u]);
      } else {
#pragma unroll
        for (int u = 0; u < 4; u++) {
          const uint32_t operand[4] = {ptx::e4m3ToHalves(a.w[u]), ptx::e4m3ToHalves(b.w[u]), ptx::e4m3ToHalves<true>(a.w[u]), ptx::e4m3ToHalves<true>(b.w[u])};
#pragma unroll
          for (int n = 0; n < kTiles; n++) ptx::multiply<false>(dot[n][u % 2], operand[0], operand[1], operand[2], operand[3], queries[n].q[4 * read + u]);
        }
      }
    }
  }

  /// Adds Vᵀ·pᵀ of 16 tokens, from 16 · half on. out[o]: channels 16o + n (0, 1) and 16o + 8 + n (2, 3), of two queries; in units of
  /// outUnit(o).
  template <int kTiles, class Running>
  __device__ __forceinline__ void multiplyValues(int half, const uint32_t (&p)[kTiles][kKeys], Running (&running)[kTiles]) const {
#pragma unroll
    for (int read = 0; read < kReads; read++) {
      const Words a = values(2 * half, read), b = values(2 * half + 1, read);
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        const uint32_t numerators[2] = {p[n][2 * half], p[n][2 * half + 1]};
        float(&out)[kSteps][4] = running[n].out;
#pragma unroll
        for (int c = 0; c < kWords; c += 2) {
          const uint32_t a0 = a.w[c], a1 = a.w[c + 1], b0 = b.w[c], b1 = b.w[c + 1];
          if constexpr (Layout::kIsInt4) {
            constexpr int kStride = kHeadDim / 64;
            ptx::multiply<false>(out[c / 2], codes<0>(a0), codes<0>(a1), codes<0>(b0), codes<0>(b1), numerators);
            ptx::multiply<false>(out[c / 2 + kStride], codes<1>(a0), codes<1>(a1), codes<1>(b0), codes<1>(b1), numerators);
            ptx::multiply<false>(out[c / 2 + 2 * kStride], codes<2>(a0), codes<2>(a1), codes<2>(b0), codes<2>(b1), numerators);
            ptx::multiply<false>(out[c / 2 + 3 * kStride], codes<3>(a0), codes<3>(a1), codes<3>(b0), codes<3>(b1), numerators);
          } else if constexpr (kBf16) {
            ptx::multiply<true>(out[2 * read + c / 2], a0, a1, b0, b1, numerators);
          } else {
            ptx::multiply<false>(out[4 * read + c / 2], ptx::e4m3ToHalves(a0), ptx::e4m3ToHalves(a1), ptx::e4m3ToHalves(b0), ptx::e4m3ToHalves(b1), numerators);
            ptx::multiply<false>(out[4 * read + 2 + c / 2], ptx::e4m3ToHalves<true>(a0), ptx::e4m3ToHalves<true>(a1), ptx::e4m3ToHalves<true>(b0), ptx::e4m3ToHalves<true>(b1),
                            numerators);
          }
        }
      }
    }
  }
  static __device__ __forceinline__ constexpr float outUnit(int o) {
    return Layout::kIsInt4 && o / (kHeadDim / 64) % 2 ? kLowUnit / kHighUnit : 1.f;
  }

  /// Values of tokens from `left` on become zero: what lies beyond the length may be anything, NaN times nothing is NaN, too.
  __device__ __forceinline__ void clearValues(int left) {
    if constexpr (!Layout::kIsInt4) {
      const int lane = threadIdx.x % 32;
#pragma unroll 1
      for (int i = 0; i < kKeys * kReads; i++) {
        const int token = 8 * (i / kReads) + lane / 8 * 2;  // words at l · 8 + …
        Words& words = reinterpret_cast<Words*>(bytes + Layout::kValues)[i * 32 + lane];
        constexpr uint32_t kEven = kBf16 ? 0x0000ffffu : 0x00ff00ffu;
        const uint32_t keep = token >= left ? 0 : token + 1 >= left ? kEven : ~0u;
#pragma unroll
        for (int w = 0; w < kWords; w++) words.w[w] &= keep;
      }
      ptx::fenceAsyncShared();  // the copy engine writes here next
      __syncwarp();
    }
  }

  /// INT4: the zero points of its values as operands of 8 tokens each, in a row lane / 4 and 8 rows further on. Symmetric: 8 on the average
  /// of the rows. A row of eights would be summed up better than the codes are: tensor cores drop what small products have beside a
  /// large sum, and products of 8 have three bits less. So rows have constants as different as codes.
  template <bool kMasked>
  __device__ __forceinline__ void valueZeros(int left, uint32_t (&zeros)[kKeys][2]) const {
    const uint32_t constant = 0x87765431u >> threadIdx.x / 4 % 8 * 4 & 15;
#pragma unroll
    for (int i = 0; i < kKeys; i++) {
      if constexpr (kFormat == KvFormat::kInt4Asymmetric) {
        const int token = 8 * i + threadIdx.x % 4 * 2;
        const uint2 words = *reinterpret_cast<const uint2*>(scales() + token);
        uint32_t both = ptx::permute(words.x, words.y, 0x4743) & 0x00ff00ffu;
        // What lies beyond the length may be anything.
        if (kMasked && token >= left) both = 0;
        if (kMasked && token + 1 >= left) both &= 0xffffu;
        zeros[i][0] = zeros[i][1] = both;
      } else {
        zeros[i][0] = constant * 0x00010001u, zeros[i][1] = (16 - constant) * 0x00010001u;
      }
    }
  }
};

}  // namespace fireq::decode
