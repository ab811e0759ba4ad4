// A block's part of a tile's sum on its way, through the L2, to the block that finishes the tile: half floats (half_sum.cuh) in the
// order of the threads that hold them, since the same threads of the other block take them up.
#pragma once
#include <cstdint>

#include "half_sum.cuh"
#include "ptx.cuh"

namespace fireq {

struct KeptSums {
  uint4* sums;
  uint32_t* ready;  // [blocks][warpgroups]: 1 while a warpgroup's part is there; 0 between launches
};

/// kUnits accumulators of kFloats a thread, kThreads threads a block.
template <int kThreads, int kUnits, int kFloats>
struct KeptSum {
  static constexpr int kWords = kFloats / 8;                                 // uint4 a thread and accumulator
  static constexpr int kBlockWords = kThreads * kUnits * kWords + kThreads * kUnits / 2;  // and two factors each
  uint4* sums;
  float2* factors;
  uint32_t* ready;

  __device__ __forceinline__ KeptSum(const KeptSums& kept, int block) {
    uint4* const base = kept.sums + static_cast<size_t>(block) * kBlockWords;
    sums = base + threadIdx.x;
    factors = reinterpret_cast<float2*>(base + kThreads * kUnits * kWords) + threadIdx.x;
    ready = kept.ready + block * (kThreads / 128) + threadIdx.x / 128;
  }
  /// scale: what d is to be multiplied by, of this thread's rows r and r + 8.
  __device__ __forceinline__ void put(int unit, const float (&d)[kFloats], const float (&scale)[2]) const {
    float up[2], factor[2];
    halfFactors(d, up, factor);
#pragma unroll
    for (int i = 0; i < kWords; i++)
      sums[(unit * kWords + i) * kThreads] =
          make_uint4(ptx::packHalf(d[8 * i] * up[0], d[8 * i + 1] * up[0]), ptx::packHalf(d[8 * i + 2] * up[1], d[8 * i + 3] * up[1]),
                     ptx::packHalf(d[8 * i + 4] * up[0], d[8 * i + 5] * up[0]), ptx::packHalf(d[8 * i + 6] * up[1], d[8 * i + 7] * up[1]));
    factors[unit * kThreads] = make_float2(factor[0] * scale[0], factor[1] * scale[1]);
  }
  /// All accumulators have been put. All threads of the warpgroup take part here and below.
  __device__ __forceinline__ void publish() const {
    ptx::syncNamed(1 + threadIdx.x / 128, 128);
    if (threadIdx.x % 128 == 0) ptx::storeRelease(ready, 1);
  }
  __device__ __forceinline__ void wait() const {
    if (threadIdx.x % 32 == 0)
      while (ptx::loadAcquire(ready) == 0) {
      }
    __syncwarp();
  }
  __device__ __forceinline__ void addTo(int unit, float (&d)[kFloats]) const {
    const float2 factor = __ldcg(factors + unit * kThreads);
#pragma unroll
    for (int i = 0; i < kWords; i++) {
      const uint4 v = __ldcg(sums + (unit * kWords + i) * kThreads);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const float2 h = ptx::unpackHalf(words[w]);
        const float f = w % 2 ? factor.y : factor.x;
        d[8 * i + 2 * w] += h.x * f, d[8 * i + 2 * w + 1] += h.y * f;
      }
    }
  }
  /// The next launch may put a sum here.
  __device__ __forceinline__ void free() const {
    ptx::syncNamed(1 + threadIdx.x / 128, 128);  // all warps have seen that it was ready
    if (threadIdx.x % 128 == 0) *ready = 0;
  }
};

}  // namespace fireq
