// INT4 weights × FP8 activations, any M, where exactness or an odd format counts for more than speed: groups of 32, 64 or
// 128 of K, or look-up rounding. D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ · diag(channelScale).
//
// Every group's sum leaves the tensor core's accumulator times its scale in FP32; one group multiplies while the one before
// is added. With look-up rounding W is E4M3(code · σ), as kernels have it that decode through a table of products: a
// thread makes the tables of its two rows from σ, and nothing is left to scale.
//
// Weights are packed as int4.cuh says, with [128 / group][64] scales behind a block's codes.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "int4.cuh"
#include "kernel_info.h"
#include "plain_gemm.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmExactParams {
  CUtensorMap x;  // E4M3 [M, K], box {128, kTokens}, 128-byte swizzle
  const uint8_t* weight;
  PlainProblem problem;
};

enum class Products { kExact, kLookup };

template <int kGroup_, Products kProducts_, int kWarpgroups_, int kTokens_, int kStages_, Codes kCodes_, ScaleType kScale_>
struct GemmExactConfig {
  static constexpr int kGroup = kGroup_;
  static constexpr Products kProducts = kProducts_;
  static constexpr int kTokens = kTokens_;
  static constexpr int kStages = kStages_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;
  static constexpr int kSubgroups = kGroupSize / kGroup;  // of a block
  static constexpr int kStep = kGroupSize;
  static constexpr int kWarpgroups = kWarpgroups_;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  static constexpr int kSums = kWarpgroups == 2 && kSubgroups > 1 ? 2 : 1;  // in flight; more warpgroups hide each other's
  static constexpr int kXBytes = kTokens * kGroupSize;
  static constexpr int kBlock = kBlockCodeBytes + kSubgroups * kBlockRows * kScaleBytes<kScale>;
  static constexpr int kStageBytes = kXBytes + kWarpgroups * kBlock;
  static_assert(kProducts == Products::kExact || kSubgroups == 1, "look-up rounding takes groups of 128");
};

template <class C>
struct GemmExactShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][C::kBlock];
  alignas(16) float tokenScale[C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
};

template <class C>
constexpr KernelInfo kGemmExactInfo{C::kFeatures, C::kTokens, 1, 0, 1, C::kThreads, sizeof(GemmExactShared<C>) + 1024,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// E4M3(code · σ) of a row, by magnitude: bytes 0…7 of `positive` are codes 0…7, those of `negative` what a negative code's
/// stored magnitude stands for.
struct ProductTable {
  uint32_t positive[2], negative[2];

  /// To FP32 such that rounding on to E4M3 is rounding once: cut off, and odd if anything was.
  template <ScaleType kScale>
  __device__ __forceinline__ static float product(float scale, int code) {
    const float v = __fmul_rz(scale, static_cast<float>(code));
    if constexpr (kScale == ScaleType::kBf16) return v;  // exact
    const bool isCut = __fmaf_rn(scale, static_cast<float>(code), -v) != 0.f;
    return __uint_as_float(__float_as_uint(v) | static_cast<uint32_t>(isCut));
  }
  template <ScaleType kScale>
  __device__ __forceinline__ static uint32_t four(float scale, int first) {
    float v[4];
    uint16_t low, high;
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = product<kScale>(scale, first + i);
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(v[1]), "f"(v[0]));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(v[3]), "f"(v[2]));
    return low | static_cast<uint32_t>(high) << 16;
  }
  template <Codes kCodes, ScaleType kScale>
  __device__ __forceinline__ void fill(float scale) {
    constexpr int kLeast = kCodes == Codes::kFull ? 1 : 0;
#pragma unroll
    for (int half = 0; half < 2; half++) {
      positive[half] = four<kScale>(scale, 4 * half);
      negative[half] = four<kScale>(-scale, 4 * half + kLeast);
    }
  }
  /// Four codes: magnitudes in bits 0-2 of the bytes, signs in bit 7.
  __device__ __forceinline__ uint32_t look(uint32_t codes) const {
    const uint32_t magnitudes = codes & 0x07070707u, pairs = magnitudes | magnitudes >> 4;
    const uint32_t selector = __byte_perm(pairs, 0, 0x4420);
    uint32_t isNegative;  // the sign bit of every byte, eight times: __byte_perm has no such mode
    asm("prmt.b32 %0, %1, 0, 0xba98;" : "=r"(isNegative) : "r"(codes));
    return (__byte_perm(negative[0], negative[1], selector) & isNegative) |
           (__byte_perm(positive[0], positive[1], selector) & ~isNegative);
  }
};

/// A warp's part of fetching groups into the ring: the first fetches activations, the others weights (see gemm_small.cuh).
template <class C>
__device__ __forceinline__ void fetchGroups(const GemmExactParams& p, GemmExactShared<C>& shared, const PlainTile<C>& tile, int part) {
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t x = ptx::smemAddress(shared.x), weight = ptx::smemAddress(shared.weight);
  const int groups = p.problem.K / kGroupSize, firstBlock = tile.feature / kBlockRows;
  const int validBlocks = min(C::kWarpgroups, (p.problem.N + kBlockRows - 1) / kBlockRows - firstBlock);
  const uint8_t* from = p.weight + (static_cast<size_t>(firstBlock) * groups + tile.first) * C::kBlock;
  int stage = 0, parity = 1;
  for (int g = tile.first; g < tile.last; g++, from += C::kBlock) {
    ptx::barrierWait(empty + stage * 8, parity);
    if (part == 0) {
      ptx::barrierArriveExpect(full + stage * 8, C::kXBytes + validBlocks * C::kBlock);
      ptx::copyTile(x + stage * C::kXBytes, &p.x, g * kGroupSize, tile.token, full + stage * 8);
    }
    for (int b = part - 1; b < validBlocks && part > 0; b += kFetchParts - 1)
      ptx::copyBulk(weight + (stage * C::kWarpgroups + b) * C::kBlock, from + static_cast<size_t>(b) * groups * C::kBlock,
                    C::kBlock, full + stage * 8);
    if (++stage == C::kStages) stage = 0, parity ^= 1;
  }
}

/// acc = this warpgroup's 64 features × kTokens, in the fragment layout of wgmma.
template <class C>
__device__ __forceinline__ void sumGroups(const PlainTile<C>& part, GemmExactShared<C>& shared, float (&acc)[C::kTokens / 2]) {
  constexpr int kSteps = 4 / C::kSubgroups;  // of k32 a group
  const int thread = threadIdx.x % 128, lane = thread % 32, row = thread / 32 * 16 + lane / 4;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t weight = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * C::kBlock;
  const uint32_t tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  float sum[C::kSums][C::kTokens / 2], scale[C::kSums][2];
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = 0.f;
  const auto add = [&](int which) {
    wgmma::pin(sum[which]);
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; i++) acc[i] += scale[which][i / 2 % 2] * sum[which][i];
  };

  int stage = 0, parity = 0;
  for (int g = part.first; g < part.last; g++) {
    ptx::barrierWait(full + stage * 8, parity);
    const uint32_t block = weight + stage * C::kWarpgroups * C::kBlock;
    const auto scaleOf = [&](int subgroup, int half) {
      const uint32_t at = block + kBlockCodeBytes + (subgroup * kBlockRows + row + half * 8) * kScaleBytes<C::kScale>;
      return C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
    };
    const uint4 low = ptx::loadShared16(block + thread * 16), high = ptx::loadShared16(block + 2048 + thread * 16);
    uint32_t codes[16];
    if constexpr (C::kProducts == Products::kLookup) {
      ProductTable even, odd;
      even.fill<C::kCodes, C::kScale>(scaleOf(0, 0));
      odd.fill<C::kCodes, C::kScale>(scaleOf(0, 1));
      const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
      for (int i = 0; i < 8; i++) {
        codes[2 * i] = even.look(words[i]);
        codes[2 * i + 1] = odd.look(__funnelshift_r(words[i], words[i], 4));
      }
    } else {
      decode<C::kCodes>(low, high, codes);
    }
    wgmma::pin(codes);
#pragma unroll
    for (int s = 0; s < C::kSubgroups; s++) {
      const int which = s % C::kSums;
#pragma unroll
      for (int half = 0; half < 2; half++)
        scale[which][half] = C::kProducts == Products::kLookup ? 1.f : scaleOf(s, half);
      wgmma::pin(sum[which]);
      wgmma::fence();
#pragma unroll
      for (int step = 0; step < kSteps; step++)
        wgmma::Wgmma<C::kTokens>::e4m3(sum[which], &codes[4 * (s * kSteps + step)],
                                       wgmma::descriptor(tile + stage * (C::kXBytes / 16) + 2 * (s * kSteps + step)),
                                       step != 0);
      wgmma::commit();
      if (C::kSums == 2 ? s > 0 : s + 1 < C::kSubgroups) {
        wgmma::wait<C::kSums - 1>();
        add((s + 1) % C::kSums);  // the one before, or this one
      }
    }
    wgmma::wait<0>();
    ptx::barrierArrive(empty + stage * 8);
    add((C::kSubgroups - 1) % C::kSums);
    if (++stage == C::kStages) stage = 0, parity ^= 1;
  }
  if constexpr (C::kProducts == Products::kExact) {
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; i++) acc[i] *= kCodeUnit;
  }
}

template <class C>
__device__ __forceinline__ void gemmExact(const GemmExactParams& p) {
  auto& shared = beginPlain<C, GemmExactShared<C>>();
  const PlainTile<C> tile(p.problem);
  // 640 threads start with 96 registers each: (96 − 24) · 128 ≥ (112 − 96) · 512.
  if (threadIdx.x >= C::kWarpgroups * 128) {
    if constexpr (C::kWarpgroups > 2) ptx::shrinkRegisters<24>();
    if (threadIdx.x % 32 == 0) fetchGroups<C>(p, shared, tile, threadIdx.x / 32 % kFetchParts);
    return;
  }
  if constexpr (C::kWarpgroups > 2) ptx::growRegisters<112>();
  loadTokenScales<C>(p.problem, tile, shared);
  float acc[1][C::kTokens / 2];
  sumGroups<C>(tile, shared, acc[0]);
  finishPlain<C>(p.problem, tile, acc, shared);
}

}  // namespace fireq
