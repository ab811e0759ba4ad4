// A block of CUDA threads on the host, each a fiber: what warps and blocks do together happens when all their threads have come there.
// For kernels whose headers are plain C++ but for intrinsics and the wrappers of ptx.cuh and wgmma.cuh; those are in this folder's.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

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

[[noreturn]] inline void fail(const char* why) {
  std::puts(why);
  std::exit(1);
}

struct Thread {
  ucontext_t context;
  std::vector<char> stack;
  int index = 0;
  bool done = false;
};

using Words = std::array<uint32_t, 8>;

/// Threads that meet: each brings some words and gets those of all.
struct Meeting {
  int alive = 0, arrived = 0;
  long round = 0;
  std::vector<Words> brought, seen;

  explicit Meeting(int threads) : alive(threads), brought(threads), seen(threads) {}
  void endIfAllCame() {
    if (arrived == 0 || arrived != alive) return;
    arrived = 0;
    seen = brought;
    round++;
  }
};

inline ucontext_t scheduler;
inline Thread* current = nullptr;
inline int blockIndex = 0, blockIndexY = 0, gridSize = 1;
inline long progress = 0;  // something that others may wait for has happened
inline std::vector<Meeting> warps;
inline std::vector<Meeting> blocks;  // one
inline void (*kernel)() = nullptr;

inline void yield() { swapcontext(&current->context, &scheduler); }

inline const std::vector<Words>& meet(Meeting& meeting, int index, const Words& words) {
  const long round = meeting.round;
  meeting.brought[index] = words;
  meeting.arrived++;
  progress++;
  meeting.endIfAllCame();
  while (meeting.round == round) yield();
  return meeting.seen;
}
inline int lane() { return current->index % 32; }
inline const std::vector<Words>& meetWarp(const Words& words) { return meet(warps[current->index / 32], lane(), words); }

inline void runThread() {
  kernel();
  for (Meeting* meeting : {&warps[current->index / 32], &blocks[0]}) {
    meeting->alive--;
    meeting->endIfAllCame();
  }
  current->done = true;
  progress++;
  yield();
}

/// Runs a block to its end. Threads take turns; if none gets on, they wait for each other for ever.
inline void runBlock(int index, int threads, void (*entry)()) {
  blockIndex = index;
  kernel = entry;
  warps.assign(threads / 32, Meeting(32));
  blocks.assign(1, Meeting(threads));
  std::vector<Thread> all(threads);
  for (int i = 0; i < threads; i++) {
    Thread& t = all[i];
    t.index = i;
    t.stack.resize(64 << 10);
    getcontext(&t.context);
    t.context.uc_stack.ss_sp = t.stack.data();
    t.context.uc_stack.ss_size = t.stack.size();
    t.context.uc_link = &scheduler;
    makecontext(&t.context, runThread, 0);
  }
  for (bool left = true; left;) {
    const long before = progress;
    left = false;
    for (Thread& t : all) {
      if (t.done) continue;
      current = &t;
      swapcontext(&scheduler, &t.context);
      left |= !t.done;
    }
    if (left && progress == before) fail("the block's threads wait for each other for ever");
  }
}

template <class T>
T shuffle(T v, int from) {
  static_assert(sizeof(T) == 4);
  return std::bit_cast<T>(meetWarp({std::bit_cast<uint32_t>(v)})[from][0]);
}

struct Index { int x, y; };

}  // namespace emulation

#define threadIdx (emulation::Index{emulation::current->index, 0})
#define blockIdx (emulation::Index{emulation::blockIndex, emulation::blockIndexY})
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
inline void __syncwarp() { emulation::meetWarp({}); }
inline void __syncthreads() { emulation::meet(emulation::blocks[0], emulation::current->index, {}); }
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
inline float __fdividef(float a, float b) { return a / b; }
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, int bits) {
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> bits);
}
