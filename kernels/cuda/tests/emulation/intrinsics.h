// What kernels use of CUDA C++ itself, on the host. Those whose headers are plain C++ but for this and the wrappers of ptx.cuh, wgmma.cuh
// and mma.cuh, which are in this folder, too, are compiled as they are.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>

#include "fibers.h"

#define __device__
#define __forceinline__ inline
#define __shared__
#define __align__(n)
using std::max;
using std::min;

struct uint2 { uint32_t x, y; };
struct int4 { int x, y, z, w; };
struct uint4 { uint32_t x, y, z, w; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulation {

template <class T>
T shuffle(T v, int from) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(meetWarp({std::bit_cast<uint32_t>(v)})[from][0]);
}

struct Index { int x, y; };

}  // namespace emulation

#define threadIdx (emulation::Index{emulation::current->index, 0})
#define blockIdx (emulation::Index{emulation::firstBlock + emulation::current->block, emulation::blockIndexY})
#define gridDim (emulation::Index{emulation::gridSize, 1})

template <class T>
T __shfl_sync(unsigned, T v, int from) { return emulation::shuffle(v, from % 32); }
template <class T>
T __shfl_xor_sync(unsigned, T v, int other) { return emulation::shuffle(v, emulation::lane() ^ other); }
inline bool __any_sync(unsigned, bool holds) {
  bool any = false;
  for (const auto& words : emulation::meetWarp({holds})) any |= words[0] != 0;
  return any;
}
inline void __syncwarp() { emulation::meet(emulation::myWarp(), emulation::lane(), {}, true); }
inline void __syncthreads() { emulation::meet(emulation::blocks[emulation::current->block], emulation::current->index, {}, true); }
inline void __threadfence() {}
template <class T>
T __ldcg(const T* from) { return *from; }
template <class T>
void __stcg(T* to, T v) { *to = v; }
inline uint32_t atomicAdd(uint32_t* to, uint32_t v) { return (*to += v) - v; }
inline float __uint_as_float(uint32_t v) { return std::bit_cast<float>(v); }
inline uint32_t __float_as_uint(float v) { return std::bit_cast<uint32_t>(v); }
inline uint32_t __reduce_max_sync(unsigned, uint32_t v) {
  for (const auto& words : emulation::meetWarp({v})) v = std::max(v, words[0]);
  return v;
}
template <class T>
T __ldg(const T* from) { return *from; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
/// Towards zero.
inline float __fmul_rz(float a, float b) {
  const double exact = static_cast<double>(a) * b;
  const float v = static_cast<float>(exact);
  return std::fabs(static_cast<double>(v)) > std::fabs(exact) ? std::nextafter(v, 0.f) : v;
}
inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t all = a | static_cast<uint64_t>(b) << 32;
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) v |= static_cast<uint32_t>(all >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
  return v;
}
inline float __fdividef(float a, float b) { return a / b; }
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, int bits) {
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> bits);
}
