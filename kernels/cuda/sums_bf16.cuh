// One warpgroup's sum of 64 features × kTokens BF16 tokens over groups of K, in FP32, three ways:
//
// * sumByWarps: mma.sync, each group's sum times its scale added up. For tokens so few that a warpgroup-wide multiplication
//   costs more to start than it does.
// * sumPromoted: the same with wgmma; one half of a group multiplies while the other is decoded.
// * RescaledBf16Sum: one accumulator, which is multiplied by scale(g−1) / scale(g) before group g is added. BF16 products
//   are added up in FP32 (unlike FP8 ones, see int4.cuh), so that costs no more than an ulp of FP32 a group.
//
// C: kTokens, kStages, kBatch (groups a stage), kWarpgroups (64-row blocks of weights a stage), kXBytes, kScale.
// A group of activations is two slices of 64 of K, [2][kTokens][128 bytes], 128-byte swizzle.
#pragma once
#include <cstdint>

#include "int4.cuh"
#include "int4_bf16.cuh"
#include "mma.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

/// One warpgroup's view of its blocks in the ring.
template <class C>
struct Blocks {
  static constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  uint32_t codes, scales;  // this thread's part of its first block

  template <class Shared>
  __device__ __forceinline__ explicit Blocks(Shared& shared) {
    const uint32_t thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
    const uint32_t first = ptx::smemAddress(shared.weight) + threadIdx.x / 128 * C::kBatch * kBlock;
    codes = first + thread * 16, scales = first + kBlockCodeBytes + row * kScaleBytes<C::kScale>;
  }
  __device__ __forceinline__ static uint32_t offset(int stage, int b = 0) { return (stage * C::kWarpgroups * C::kBatch + b) * kBlock; }
  /// The A operands of half a group's steps.
  __device__ __forceinline__ void decode(uint32_t at, int half, uint32_t (&a)[16]) const {
    decodeBf16(ptx::loadShared16(codes + at + half * (kBlockCodeBytes / 2)), a);
  }
  /// Of rows r and r + 8.
  __device__ __forceinline__ float scale(uint32_t at, int half) const {
    const uint32_t address = scales + at + half * 8 * kScaleBytes<C::kScale>;
    return C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(address) : ptx::loadSharedFloat(address);
  }
};

/// acc = the sum over groups first…last; release(g, stage): this lane has left the stage of group g and its batch.
template <class C, class Shared, class Release>
__device__ __forceinline__ void sumByWarps(Shared& shared, int first, int last, Release release, float (&acc)[C::kTokens / 2]) {
  constexpr int kColumns = C::kTokens / 8;
  const Blocks<C> blocks(shared);
  const uint32_t lane = threadIdx.x % 32, full = ptx::smemAddress(shared.full);
  const uint32_t x = ptx::smemAddress(shared.x) + lane % 8 * 128 + ((lane / 8) ^ (lane % 8)) * 16;  // K 8 · (lane / 8) of token lane % 8
  Ring<C::kStages> ring;
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = 0.f;
  for (int g = first; g < last; g += C::kBatch, ring.advance()) {
    float sum[C::kBatch][C::kTokens / 2], scale[C::kBatch][2];
    ptx::barrierWait(full + ring.stage * 8, ring.parity);
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      const uint32_t at = Blocks<C>::offset(ring.stage, b), tile = x + (ring.stage * C::kBatch + b) * C::kXBytes;
      scale[b][0] = blocks.scale(at, 0), scale[b][1] = blocks.scale(at, 1);
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) sum[b][i] = 0.f;
#pragma unroll
      for (int half = 0; half < 2; half++) {
        uint32_t a[16];
        blocks.decode(at, half, a);
#pragma unroll
        for (int pair = 0; pair < 2; pair++)  // of steps
#pragma unroll
          for (int c = 0; c < kColumns; c++) {
            uint32_t t[4];
            mma::loadMatrices(t, (tile + (half * C::kTokens + c * 8) * 128) ^ pair * 64);
            mma::bf16(&sum[b][4 * c], &a[8 * pair], t);
            mma::bf16(&sum[b][4 * c], &a[8 * pair + 4], t + 2);
          }
      }
    }
    __syncwarp();
    release(g, ring.stage);
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      if (b > 0 && g + b >= last) break;  // the rest of the last stage is not ours, or not written
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) acc[i] += scale[b][i / 2 % 2] * sum[b][i];
    }
  }
}

/// The same, by the whole warpgroup.
template <class C, class Shared, class Release>
__device__ __forceinline__ void sumPromoted(Shared& shared, int first, int last, Release release, float (&acc)[C::kTokens / 2]) {
  const Blocks<C> blocks(shared);
  const uint32_t full = ptx::smemAddress(shared.full), x = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  Ring<C::kStages> ring;
#pragma unroll
  for (int i = 0; i < C::kTokens / 2; i++) acc[i] = 0.f;
  for (int g = first; g < last; g += C::kBatch) {
    float sum[C::kBatch][C::kTokens / 2], scale[C::kBatch][2];
    uint32_t a[2][16];
    ptx::barrierWait(full + ring.stage * 8, ring.parity);
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      const uint32_t at = Blocks<C>::offset(ring.stage, b), tile = x + (ring.stage * C::kBatch + b) * (C::kXBytes / 16);
      scale[b][0] = blocks.scale(at, 0), scale[b][1] = blocks.scale(at, 1);
      wgmma::pin(sum[b]);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        if (b > 0) wgmma::wait<1>();  // this half of the group before has left its registers
        blocks.decode(at, half, a[half]);
        wgmma::pin(a[half]);
        wgmma::fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
          wgmma::Wgmma<C::kTokens>::bf16(sum[b], &a[half][4 * step], wgmma::descriptor(tile + half * (C::kTokens * 128 / 16) + 2 * step),
                                         half + step > 0);
        wgmma::commit();
      }
    }
    wgmma::wait<0>();
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) wgmma::pin(sum[b]);
    release(g, ring.stage);
    ring.advance();
#pragma unroll
    for (int b = 0; b < C::kBatch; b++) {
      if (b > 0 && g + b >= last) break;
#pragma unroll
      for (int i = 0; i < C::kTokens / 2; i++) acc[i] += scale[b][i / 2 % 2] * sum[b][i];
    }
  }
}

/// The multiplying warpgroups' turns at the tensor cores: while one's group multiplies, the others rescale and decode. One
/// barrier a warpgroup, of four arrivals.
template <int kWarpgroups>
struct Turns {
  uint32_t mine, next;
  uint32_t parity = threadIdx.x < 128;  // the first turn is the first warpgroup's
  __device__ __forceinline__ explicit Turns(uint64_t* barriers)
      : mine(ptx::smemAddress(barriers + threadIdx.x / 128)), next(ptx::smemAddress(barriers + (threadIdx.x / 128 + 1) % kWarpgroups)) {}
  __device__ __forceinline__ void take() {
    ptx::barrierWait(mine, parity);
    parity ^= 1;
  }
  __device__ __forceinline__ void pass() const {
    if (threadIdx.x % 32 == 0) ptx::barrierArrive(next);
  }
};

/// Where tiles are small and turns cost more than they bring (2 to 4 % with 128 tokens).
struct NoTurns {
  __device__ __forceinline__ void take() const {}
  __device__ __forceinline__ void pass() const {}
};

template <class C>
struct RescaledBf16Sum {
  static_assert(C::kBatch == 1, "one group a stage");
  const Blocks<C> blocks;
  uint32_t full, x;
  float d[C::kTokens / 2];  // times `scale`: the sum, in the fragment layout of wgmma
  float scale[2];           // of this thread's rows r and r + 8

  template <class Shared>
  __device__ __forceinline__ explicit RescaledBf16Sum(Shared& shared)
      : blocks(shared), full(ptx::smemAddress(shared.full)), x(wgmma::descriptorLow(ptx::smemAddress(shared.x))) {}

  /// release(i, stage): this lane has left the i-th group's stage.
  template <class Ring, class Turns, class Release>
  __device__ __forceinline__ void add(Ring& ring, Turns& turns, int groups, Release release) {
    uint32_t a[2][16];
    float ratio[2];
    auto enter = [&] {
      ptx::barrierWait(full + ring.stage * 8, ring.parity);
      const uint32_t at = Blocks<C>::offset(ring.stage);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const float next = blocks.scale(at, half);
        ratio[half] = scale[half] * ptx::reciprocal(next);
        scale[half] = next;
      }
      blocks.decode(at, 0, a[0]);
    };
#pragma unroll
    for (int i = 0; i < C::kTokens / 2; i++) d[i] = 0.f;
    scale[0] = scale[1] = 1.f;
    enter();
    blocks.decode(Blocks<C>::offset(ring.stage), 1, a[1]);
#pragma unroll 1
    for (int i = 0; i < groups; i++) {
      const bool more = i + 1 < groups;
      wgmma::pin(d);
      wgmma::pin(a[0]);
      wgmma::pin(a[1]);
      turns.take();
      wgmma::fence();
      const uint32_t tile = x + ring.stage * (C::kXBytes / 16);
#pragma unroll
      for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int step = 0; step < 4; step++)
          wgmma::Wgmma<C::kTokens>::bf16(d, &a[half][4 * step], wgmma::descriptor(tile + half * (C::kTokens * 128 / 16) + 2 * step), 1);
        wgmma::commit();
      }
      turns.pass();
      const int current = ring.stage;
      ring.advance();
      if (more) {
        wgmma::wait<1>();  // the first half has left its registers
        enter();
      }
      wgmma::wait<0>();
      wgmma::pin(d);
      release(i, current);
      if (!more) break;
#pragma unroll
      for (int j = 0; j < C::kTokens / 2; j++) d[j] *= ratio[j / 2 % 2];  // at the loop's end: within a turn it would cost time
      blocks.decode(Blocks<C>::offset(ring.stage), 1, a[1]);
    }
  }
};

}  // namespace fireq
