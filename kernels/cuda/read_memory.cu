// Reads memory once, as fast as it can be read: what other kernels' use of the memory is compared with.
#include <cstdint>

/// sink: written to only if the words' exclusive or is `unlikely`, so that the reads must happen.
extern "C" __global__ void __launch_bounds__(512, 2) read_memory(const uint4* from, uint32_t vectors, uint32_t unlikely, uint32_t* sink) {
  constexpr int kUnroll = 8;
  const uint64_t step = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  uint32_t all = 0;
  for (uint64_t i = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += kUnroll * step) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; u++) v[u] = i + u * step < vectors ? __ldcs(from + i + u * step) : make_uint4(0, 0, 0, 0);
#pragma unroll
    for (int u = 0; u < kUnroll; u++) all ^= v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  if (all == unlikely) *sink = all;
}
