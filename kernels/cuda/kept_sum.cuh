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

/// kUnits accumulators of kFloats a thread, kWarpgroups warpgroups a block: [unit][warpgroup][word][thread], so that a warpgroup's
/// part of a unit is one piece of memory; then two factors a unit and thread.
template <int kWarpgroups, int kUnits, int kFloats>
struct KeptSum {
  static constexpr int kWords = kFloats / 8;                             // uint4 a thread and accumulator
  static constexpr int kPieceBytes = kWords * 128 * 16;                  // of a warpgroup's accumulator
  static constexpr int kSumBytes = kUnits * kWarpgroups * kPieceBytes;   // of a block's
  static constexpr int kBytes = kSumBytes + kUnits * kWarpgroups * 128 * 8;
  uint8_t* sums;
  uint32_t* ready;
  int warpgroup, thread;

  __device__ __forceinline__ KeptSum(const KeptSums& kept, int block)
      : sums(reinterpret_cast<uint8_t*>(kept.sums) + static_cast<size_t>(block) * kBytes),
        ready(kept.ready + block * kWarpgroups),
        warpgroup(threadIdx.x / 128),
        thread(threadIdx.x % 128) {}

  /// scale: what d is to be multiplied by, of this thread's rows r and r + 8.
  __device__ __forceinline__ void put(int unit, const float (&d)[kFloats], const float (&scale)[2]) const {
    float up[2], factor[2];
    halfFactors(d, up, factor);
    uint4* to = reinterpret_cast<uint4*>(piece(unit)) + thread;
#pragma unroll
    for (int i = 0; i < kWords; i++)
      to[i * 128] = make_uint4(ptx::packHalf(d[8 * i] * up[0], d[8 * i + 1] * up[0]), ptx::packHalf(d[8 * i + 2] * up[1], d[8 * i + 3] * up[1]),
                               ptx::packHalf(d[8 * i + 4] * up[0], d[8 * i + 5] * up[0]), ptx::packHalf(d[8 * i + 6] * up[1], d[8 * i + 7] * up[1]));
    *factors(unit) = make_float2(factor[0] * scale[0], factor[1] * scale[1]);
  }
  /// Tells that all warpgroups have put theirs, by one thread that knows.
  __device__ __forceinline__ void publish() const {
#pragma unroll
    for (int w = 0; w < kWarpgroups; w++) ptx::storeRelease(ready + w, 1);
  }
  /// Until warpgroup `w`'s is there.
  __device__ __forceinline__ void wait(int w) const {
    while (ptx::loadAcquire(ready + w) == 0) {
    }
  }
  /// d += this warpgroup's part. word(i): the i-th word of this thread.
  template <class Word>
  __device__ __forceinline__ void addTo(int unit, float (&d)[kFloats], Word word) const {
    const float2 factor = __ldcg(factors(unit));
#pragma unroll
    for (int i = 0; i < kWords; i++) {
      const uint4 v = word(i);
      const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int w = 0; w < 4; w++) {
        const float2 h = ptx::unpackHalf(words[w]);
        const float f = w % 2 ? factor.y : factor.x;
        d[8 * i + 2 * w] += h.x * f, d[8 * i + 2 * w + 1] += h.y * f;
      }
    }
  }
  __device__ __forceinline__ void addTo(int unit, float (&d)[kFloats]) const {
    const uint4* from = reinterpret_cast<const uint4*>(piece(unit)) + thread;
    addTo(unit, d, [&](int i) { return __ldcg(from + i * 128); });
  }
  /// The next launch may put a sum here. All threads of the warpgroup take part.
  __device__ __forceinline__ void free() const {
    ptx::syncNamed(1 + warpgroup, 128);  // all have read
    if (thread == 0) ready[warpgroup] = 0;
  }

 private:
  __device__ __forceinline__ uint8_t* piece(int unit) const { return sums + (unit * kWarpgroups + warpgroup) * kPieceBytes; }
  __device__ __forceinline__ float2* factors(int unit) const {
    return reinterpret_cast<float2*>(sums + kSumBytes) + (unit * kWarpgroups + warpgroup) * 128 + thread;
  }
};

}  // namespace fireq
