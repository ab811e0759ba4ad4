// The ring of shared-memory stages between the warps that fetch and those that multiply. Each lane tells that it has left a stage that it
// has read: one lane that speaks for its warp, behind a __syncwarp, is as right and in the GEMMs no faster, but compute-sanitizer's
// racecheck takes the other lanes' loads for races (docs/kernels/checks.md).
#pragma once
#include <cstdint>

#include "ptx.cuh"

namespace fireq {

/// Warps of the fetching warpgroup: the first fetches activations, the others weights.
constexpr int kFetchParts = 4;

/// A ring's barriers, by one thread: of each stage that it is full, and that those who read it have left, so many threads.
template <int kStages>
__device__ __forceinline__ void beginRing(uint64_t (&full)[kStages], uint64_t (&empty)[kStages], int readers) {
  for (int i = 0; i < kStages; i++) {
    ptx::barrierInit(ptx::smemAddress(&full[i]), 1);
    ptx::barrierInit(ptx::smemAddress(&empty[i]), readers);
  }
}

/// A position in the ring, and the parity of its stage's barriers at that turn.
template <int kStages>
struct Ring {
  int stage = 0, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

/// The same from any first stage on.
template <int kStages>
struct RingFrom {
  int start, stage = start, parity = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) stage = 0;
    if (stage == start) parity ^= 1;
  }
};

}  // namespace fireq
