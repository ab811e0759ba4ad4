// One warpgroup's sum of 64 features × kTokens tokens over groups of K, the group scales exact and one accumulator only:
// before group g is added, the accumulator is multiplied by scale(g−1) / scale(g), and the last scale goes to the epilogue.
//
// A warpgroup waits for its own multiplications before it touches the next group. What keeps the tensor cores busy are the
// block's other warpgroups: with three or four of them, each one's decoding and rescaling hides under the others' work.
#pragma once
#include <cstdint>

#include "int4.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

/// C: kTokens, kStages, kWarpgroups (64-row blocks of weights a stage), kXBytes, kCodes, kScale.
template <class C>
struct RescaledSum {
  static constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  uint32_t full, weight, tile;  // barriers; this warpgroup's block of stage 0; descriptor of the activations of stage 0
  float d[C::kTokens / 2];      // times kCodeUnit and `scale`: the sum, in the fragment layout of wgmma
  float scale[2];               // of this thread's rows r and r + 8

  /// shared: x[kStages][kXBytes], weight[kStages][kWarpgroups][kBlock], full[kStages].
  template <class Shared>
  __device__ __forceinline__ RescaledSum(Shared& shared, int warpgroup)
      : full(ptx::smemAddress(shared.full)),
        weight(ptx::smemAddress(shared.weight) + warpgroup * kBlock),
        tile(wgmma::descriptorLow(ptx::smemAddress(shared.x))) {}

  /// release(i, stage): this lane has left the i-th group's stage.
  template <class Ring, class Release>
  __device__ __forceinline__ void add(Ring& ring, int groups, Release release) {
    const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
    uint4 low, high;
    float next[2];
    auto fetch = [&] {
      ptx::barrierWait(full + ring.stage * 8, ring.parity);
      const uint32_t block = weight + ring.stage * (C::kWarpgroups * kBlock);
      low = ptx::loadShared16(block + thread * 16), high = ptx::loadShared16(block + 2048 + thread * 16);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
        next[half] = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
      }
    };
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; i++) d[i] = 0.f;
    scale[0] = scale[1] = 1.f;
    fetch();
#pragma unroll 1
    for (int i = 0; i < groups; i++) {
      uint32_t codes[16];
      decode<C::kCodes>(low, high, codes);
      float ratio[2];
#pragma unroll
      for (int half = 0; half < 2; half++) {
        ratio[half] = scale[half] * kRounding * ptx::reciprocal(next[half]);
        scale[half] = next[half];
      }
#pragma unroll
      for (int j = 0; j < C::kTokens / 2; j++) d[j] *= ratio[j / 2 % 2];
      wgmma::pin(d);
      wgmma::pin(codes);
      wgmma::fence();
      const uint32_t b = tile + ring.stage * (C::kXBytes / 16);
#pragma unroll
      for (int step = 0; step < 4; step++)
        wgmma::Wgmma<C::kTokens>::e4m3(d, &codes[4 * step], wgmma::descriptor(b + 2 * step), i > 0 || step > 0);
      wgmma::commit();
      const int current = ring.stage;
      ring.advance();
      if (i + 1 < groups) fetch();
      wgmma::wait<0>();
      wgmma::pin(d);
      release(i, current);
    }
  }
};

}  // namespace fireq
