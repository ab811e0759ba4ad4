// The wrappers of kernels/cuda/ptx.cuh that attention_decode, attention_prefill and gemm_large use, on the host. A bulk copy arrives when it is issued: one that overwrites
// what is still to be read shows.
#pragma once
#include <map>

#include "block.h"
#include "cuda.h"

namespace fireq {

constexpr uint32_t kSharedBytes = 227 * 1024;
extern uint8_t memory[];  // a block's shared memory

namespace ptx {

struct Barrier {
  int count = 0, arrived = 0;
  int64_t bytes = 0;
  uint32_t phase = 0;

  void endIfComplete() {
    if (arrived != count || bytes != 0) return;
    arrived = 0;
    phase ^= 1;
    emulation::progress++;
  }
};
inline std::map<uint32_t, Barrier> barriers;
inline const uint8_t *readable = nullptr, *readableEnd = nullptr;  // what bulk copies may read

inline uint32_t smemAddress(const void* p) {
  const int64_t at = static_cast<const uint8_t*>(p) - memory;
  if (at < 0 || at >= kSharedBytes) emulation::fail("not an address in shared memory");
  return static_cast<uint32_t>(at);
}
inline void barrierInit(uint32_t barrier, int count) { barriers[barrier] = {count}; }
inline void barrierInitFence() {}
inline void barrierArrive(uint32_t barrier) {
  Barrier& b = barriers.at(barrier);
  if (++b.arrived > b.count) emulation::fail("more arrive at a barrier than it counts");
  b.endIfComplete();
}
inline void barrierArriveExpect(uint32_t barrier, uint32_t bytes) {
  Barrier& b = barriers.at(barrier);
  b.arrived++;
  b.bytes += bytes;
  b.endIfComplete();
}
inline void barrierWait(uint32_t barrier, uint32_t parity) {
  while (barriers.at(barrier).phase == parity) emulation::yield();
}
inline void copyBulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  const auto* const source = static_cast<const uint8_t*>(from);
  if (source < readable || source + bytes > readableEnd) emulation::fail("a bulk copy from outside the cache");
  if (to % 16 || bytes % 16 || (source - readable) % 16) emulation::fail("a bulk copy that isn't aligned");
  std::memcpy(memory + to, source, bytes);
  barriers.at(barrier).bytes -= bytes;
  barriers.at(barrier).endIfComplete();
}
/// A thread's copies: they arrive when it waits for them or has them arrive at a barrier.
struct AsyncCopy {
  uint32_t to;
  const void* from;
  uint32_t bytes;
};
inline std::map<int, std::vector<AsyncCopy>> asyncCopies;
inline void copyAsync(uint32_t to, const void* from) {
  if (to % 16 || reinterpret_cast<uintptr_t>(from) % 16) emulation::fail("an asynchronous copy that isn't aligned");
  asyncCopies[emulation::current->index].push_back({to, from, 16});
}
inline void copyAsyncOrZero(uint32_t to, const void* from, bool exists) {
  alignas(16) static const uint8_t zeros[16] = {};
  copyAsync(to, exists ? from : zeros);
}
inline void copyAsyncKept(uint32_t to, const void* from) { copyAsync(to, from); }
inline void copyAsync4(uint32_t to, const void* from) { asyncCopies[emulation::current->index].push_back({to, from, 4}); }
inline void copyCommit() {}
template <int kLeft>
void copyWait() {
  static_assert(kLeft == 0);
  auto& copies = asyncCopies[emulation::current->index];
  for (const auto& copy : copies) std::memcpy(memory + copy.to, copy.from, copy.bytes);
  copies.clear();
}
inline void copyAsyncArrive(uint32_t barrier) {
  copyWait<0>();
  barrierArrive(barrier);
}
inline void storeBulk(void* to, uint32_t from, uint32_t bytes) { std::memcpy(to, memory + from, bytes); }
inline void storeCommit() {}
template <int kPending>
void storeWait() {}
inline void fenceAsyncShared() {}
template <int kRegisters>
void growRegisters() {}
template <int kRegisters>
void shrinkRegisters() {}
inline void storeGlobal16(void* to, uint4 v) { std::memcpy(to, &v, 16); }
inline void prefetchL2(const void*) {}
inline uint32_t addInOrder(uint32_t* to, uint32_t v) { return (*to += v) - v; }
inline void launchDependents() {}
inline void waitForPrevious() {}

inline float exp2Fast(float x) { return std::exp2(x); }
inline float log2Fast(float x) { return std::log2(x); }
inline float log2FastFtz(float x) { return std::log2(x); }

inline float halfToFloat(uint16_t bits) { return std::bit_cast<_Float16>(bits); }
inline uint16_t floatToHalf(float v) { return std::bit_cast<uint16_t>(static_cast<_Float16>(v)); }
inline uint16_t floatToBf16(float v) {
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  return static_cast<uint16_t>(std::isnan(v) ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float e4m3ToFloat(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float v = exponent ? std::ldexp(8.f + mantissa, exponent - 10) : std::ldexp(static_cast<float>(mantissa), -9);
  return bits & 128 ? -v : v;
}
inline uint32_t pair(uint16_t low, uint16_t high) { return low | static_cast<uint32_t>(high) << 16; }

inline float2 unpackHalf(uint32_t v) { return {halfToFloat(v & 0xffff), halfToFloat(v >> 16)}; }
inline uint32_t packHalf(float low, float high) { return pair(floatToHalf(low), floatToHalf(high)); }
inline uint32_t packBf16(float low, float high) { return pair(floatToBf16(low), floatToBf16(high)); }
inline uint32_t multiplyHalves(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return packHalf(x.x * y.x, x.y * y.y);
}
inline uint32_t whereGreaterHalves(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return (x.x > y.x ? 0xffffu : 0) | (x.y > y.y ? 0xffff0000u : 0);
}
template <bool kHigh = false>
uint32_t e4m3ToHalves(uint32_t bytes) {
  if (kHigh) bytes >>= 16;
  return packHalf(e4m3ToFloat(bytes & 255), e4m3ToFloat(bytes >> 8 & 255));
}
inline uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t all = a | static_cast<uint64_t>(b) << 32;
  uint32_t v = 0;
  for (int i = 0; i < 4; i++) {
    const uint8_t byte = all >> 8 * (selector >> 4 * i & 7);
    const bool sign = selector >> 4 * i & 8;
    v |= static_cast<uint32_t>(sign ? byte & 128 ? 255 : 0 : byte) << 8 * i;
  }
  return v;
}

/// Rounds to nearest, ties to even codes; saturates.
inline uint8_t floatToE4m3(float v) {
  if (std::isnan(v)) return 0x7f;
  const float size = std::fabs(v);
  int code = 0;
  for (int step = 64; step > 0; step /= 2)  // the largest that is no larger, up to 448
    if (code + step <= 126 && e4m3ToFloat(static_cast<uint8_t>(code + step)) <= size) code += step;
  if (code < 126) {
    const float below = size - e4m3ToFloat(static_cast<uint8_t>(code)), above = e4m3ToFloat(static_cast<uint8_t>(code + 1)) - size;
    if (above < below || (above == below && code % 2 == 1)) code++;
  }
  return static_cast<uint8_t>(code | (std::signbit(v) ? 128 : 0));
}
template <class Function>
uint32_t ofHalves(const Function& f, uint32_t a, uint32_t b = 0, uint32_t c = 0) {
  const float2 x = unpackHalf(a), y = unpackHalf(b), z = unpackHalf(c);
  return packHalf(f(x.x, y.x, z.x), f(x.y, y.y, z.y));
}
inline uint32_t addHalves(uint32_t a, uint32_t b) {
  return ofHalves([](float x, float y, float) { return x + y; }, a, b);
}
inline uint32_t maxHalves(uint32_t a, uint32_t b) {
  return ofHalves([](float x, float y, float) { return std::fmax(x, y); }, a, b);
}
inline uint32_t multiplyHalvesRounded(uint32_t a, uint32_t b) { return multiplyHalves(a, b); }
inline uint32_t multiplyAddHalves(uint32_t a, uint32_t b, uint32_t c) {
  return ofHalves([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c);
}
inline uint32_t multiplyAddHalvesSaturated(uint32_t a, uint32_t b, uint32_t c) {
  const auto clamped = [](float x, float y, float z) {
    const float v = std::fma(x, y, z);
    return v > 0 ? std::min(v, 1.f) : 0.f;
  };
  return ofHalves(clamped, a, b, c);
}
inline uint32_t exp2FastHalves(uint32_t a) {
  return ofHalves([](float x, float, float) { return std::exp2(x); }, a);
}
inline uint32_t halvesToE4m3(uint32_t a, uint32_t b) {
  const float2 x = unpackHalf(a), y = unpackHalf(b);
  return floatToE4m3(x.x) | floatToE4m3(x.y) << 8 | floatToE4m3(y.x) << 16 | static_cast<uint32_t>(floatToE4m3(y.y)) << 24;
}
inline float minOrNan(float a, float b) { return std::isnan(a) || std::isnan(b) ? NAN : std::min(a, b); }

template <class T>
T load(uint32_t address) {
  if (address % sizeof(T)) emulation::fail("a load from shared memory that isn't aligned");
  T v;
  std::memcpy(&v, memory + address, sizeof v);
  return v;
}
inline uint32_t loadShared4(uint32_t address) { return load<uint32_t>(address); }
inline uint2 loadShared8(uint32_t address) { return load<uint2>(address); }
inline uint4 loadShared16(uint32_t address) { return load<uint4>(address); }
inline float loadSharedFloat(uint32_t address) { return load<float>(address); }
inline void storeShared8(uint32_t address, uint32_t a, uint32_t b) {
  const uint32_t v[2] = {a, b};
  std::memcpy(memory + address, v, 8);
}
inline void storeShared16(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  if (address % 16) emulation::fail("a store to shared memory that isn't aligned");
  const uint32_t words[4] = {a, b, c, d};
  std::memcpy(memory + address, words, 16);
}
/// Of each matrix a lane has row i / 4, columns 2 (i % 4) and one more; lane 8m + r says where row r of matrix m goes.
inline void storeMatrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const auto& all = emulation::meetWarp({address});
  const uint32_t words[4] = {a, b, c, d};
  for (int m = 0; m < 4; m++) std::memcpy(memory + all[8 * m + emulation::lane() / 4][0] + emulation::lane() % 4 * 4, &words[m], 4);
}

/// Poison: who reads them before they are written shows.
template <int kCount>
void anew(float (&d)[kCount]) {
  for (float& v : d) v = NAN;
}
template <int kCount>
void anew(uint32_t (&d)[kCount]) {
  for (uint32_t& v : d) v = 0x7fff7fff;
}
inline uint32_t unseen(uint32_t v, uint32_t nothing) { return v ^ nothing; }
inline int threadNumber() { return emulation::current->index; }

inline uint32_t transposeMatrix(uint32_t v) {
  const auto& rows = emulation::meetWarp({v});
  const int row = emulation::lane() / 4, column = emulation::lane() % 4 * 2;
  const auto element = [&](int r, int c) { return static_cast<uint16_t>(rows[r * 4 + c / 2][0] >> c % 2 * 16); };
  return pair(element(column, row), element(column + 1, row));
}

inline float another(float v) { return v; }
inline float reciprocal(float v) { return 1.f / v; }
inline float2 loadSharedFloat2(uint32_t address) { return load<float2>(address); }
inline float loadSharedBf16(uint32_t address) { return __uint_as_float(static_cast<uint32_t>(load<uint16_t>(address)) << 16); }
inline void storeSharedFloat(uint32_t address, float v) { std::memcpy(memory + address, &v, 4); }
inline void storeRelease(uint32_t* to, uint32_t v) { *to = v; }
inline uint32_t loadAcquire(const uint32_t* from) {
  if (*from == 0) emulation::yield();
  return *from;
}
inline void fenceAsync() {}

// A cluster is one block.
inline uint32_t clusterRank() { return 0; }
inline uint32_t clusterAddress(uint32_t address, uint32_t) { return address; }
inline void clusterArrive() {}
inline void clusterWait() {}
inline void barrierArriveCluster(uint32_t barrier, int count = 1) {
  while (count-- > 0) barrierArrive(barrier);
}

inline std::map<int, emulation::Meeting> named;  // barriers
inline void syncNamed(int id, int threads) {
  emulation::meet(named.try_emplace(id, threads).first->second, emulation::current->index % threads, {});
}

/// move(element of the matrix, null outside; its bytes in shared memory) for all of a box.
template <class Move>
void forBox(const CUtensorMap& map, uint32_t at, int x, int y, const Move& move) {
  const int rowBytes = map.boxWidth * map.bytes, mask = map.swizzle / 16 - 1;
  if (rowBytes != map.swizzle || at % 1024) emulation::fail("a box that isn't swizzled as it lies");
  for (int row = 0; row < map.boxHeight; row++)
    for (int i = 0; i < map.boxWidth; i++) {
      const int64_t column = x + i, line = y + row;
      auto* const element = static_cast<uint8_t*>(map.matrix) + (line * map.width + column) * map.bytes;
      const uint32_t flat = at + row * rowBytes + i * map.bytes;
      move(column < map.width && line < map.height ? element : nullptr, memory + (flat ^ (flat >> 7 & mask) << 4));
    }
}
inline void copyTile(uint32_t to, const CUtensorMap* map, int x, int y, uint32_t barrier) {
  forBox(*map, to, x, y, [&](const uint8_t* from, uint8_t* at) { from ? std::memcpy(at, from, map->bytes) : std::memset(at, 0, map->bytes); });
  barriers.at(barrier).bytes -= map->boxWidth * map->bytes * map->boxHeight;
  barriers.at(barrier).endIfComplete();
}
inline void copyTileMulticast(uint32_t to, const CUtensorMap* map, int x, int y, uint32_t barrier, uint16_t) { copyTile(to, map, x, y, barrier); }
inline void storeTile(const CUtensorMap* map, uint32_t from, int x, int y) {
  forBox(*map, from, x, y, [&](uint8_t* to, const uint8_t* at) { to ? std::memcpy(to, at, map->bytes) : nullptr; });
}
template <int kPending>
void storeWaitRead() {}
/// Like storeMatrices, but a lane has column i / 4 of rows 2 (i % 4) and one more.
inline void storeMatricesTransposed(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const auto& all = emulation::meetWarp({address});
  const uint32_t words[4] = {a, b, c, d};
  const int l = emulation::lane();
  for (int m = 0; m < 4; m++)
    for (int e = 0; e < 2; e++) {
      const uint16_t half = static_cast<uint16_t>(words[m] >> 16 * e);
      std::memcpy(memory + all[8 * m + 2 * (l % 4) + e][0] + l / 4 * 2, &half, 2);
    }
}

inline uint4 loadMatricesTransposed(uint32_t address) {
  const auto& all = emulation::meetWarp({address});
  uint32_t words[4] = {};
  const int l = emulation::lane();
  for (int m = 0; m < 4; m++)
    for (int e = 0; e < 2; e++) {
      uint16_t half;
      std::memcpy(&half, memory + all[8 * m + 2 * (l % 4) + e][0] + l / 4 * 2, 2);
      words[m] |= static_cast<uint32_t>(half) << 16 * e;
    }
  return {words[0], words[1], words[2], words[3]};
}

template <bool kBf16>
void multiply(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, const uint32_t (&b)[2]) {
  const auto words = emulation::meetWarp({a0, a1, a2, a3, b[0], b[1]});
  const int g = emulation::lane() / 4, l = emulation::lane() % 4;
  const auto number = [](uint32_t word, int half) {
    const uint16_t bits = static_cast<uint16_t>(word >> 16 * half);
    return kBf16 ? __uint_as_float(static_cast<uint32_t>(bits) << 16) : halfToFloat(bits);
  };
  for (int i = 0; i < 4; i++) {  // row g + 8 (i / 2), column 2l + i % 2
    double sum = d[i];
    for (int k = 0; k < 16; k++) {
      const int from = k % 8 / 2;
      sum += static_cast<double>(number(words[g * 4 + from][k / 8 * 2 + i / 2], k % 2)) *
             number(words[(2 * l + i % 2) * 4 + from][4 + k / 8], k % 2);
    }
    d[i] = static_cast<float>(sum);
  }
}

}  // namespace ptx
}  // namespace fireq
