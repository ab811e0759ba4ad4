// kernels/cuda/ptx.cuh on the host, as far as the kernels that are emulated use it. A bulk copy arrives when it is issued: one that
// overwrites what is still to be read shows; one that might, by races.h.
#pragma once
#include "cuda.h"
#include "intrinsics.h"
#include "ptx_numbers.cuh"

namespace fireq::ptx {

namespace races = emulation::races;

// --- shared memory ----------------------------------------------------------------------------------------------------

/// In the window of a cluster, block b's shared memory begins at (b + 1) · kWindow.
constexpr uint32_t kWindow = 1u << 24;

struct Location {
  int block;
  uint32_t at;
  uint8_t* bytes() const { return emulation::memoryOf(block) + at; }
};
Location locate(uint32_t address, uint32_t bytes);

template <class T>
T& sharedMemory() {
  return *reinterpret_cast<T*>(emulation::memoryOf(emulation::current->block));
}
uint32_t smemAddress(const void* p);

template <class T>
T load(uint32_t address, const char* what = "a load") {
  if (address % sizeof(T)) emulation::fail("a load from shared memory that isn't aligned");
  const Location l = locate(address, sizeof(T));
  races::access(l.block, l.at, sizeof(T), false, races::Unit::kThread, what);
  T v;
  std::memcpy(&v, l.bytes(), sizeof v);
  return v;
}
template <class T>
void store(uint32_t address, const T& v, const char* what = "a store") {
  if (address % sizeof(T)) emulation::fail("a store to shared memory that isn't aligned");
  const Location l = locate(address, sizeof(T));
  races::access(l.block, l.at, sizeof(T), true, races::Unit::kThread, what);
  std::memcpy(l.bytes(), &v, sizeof v);
}
inline uint32_t loadShared4(uint32_t address) { return load<uint32_t>(address); }
inline uint2 loadShared8(uint32_t address) { return load<uint2>(address); }
inline uint4 loadShared16(uint32_t address) { return load<uint4>(address); }
inline float loadSharedFloat(uint32_t address) { return load<float>(address); }
inline float2 loadSharedFloat2(uint32_t address) { return load<float2>(address); }
inline float loadSharedBf16(uint32_t address) { return __uint_as_float(static_cast<uint32_t>(load<uint16_t>(address)) << 16); }
inline void storeShared8(uint32_t address, uint32_t a, uint32_t b) { store(address, uint2{a, b}); }
inline void storeShared16(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) { store(address, uint4{a, b, c, d}); }
inline void storeSharedFloat(uint32_t address, float v) { store(address, v); }
inline void storeSharedFloat4(uint32_t address, float4 v) { store(address, v); }

/// Of each matrix a lane has row i / 4, columns 2 (i % 4) and one more; lane 8m + r says where row r of matrix m goes.
inline void storeMatrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const auto& all = emulation::meetWarp({address});
  const uint32_t words[4] = {a, b, c, d};
  for (int m = 0; m < 4; m++) store(all[8 * m + emulation::lane() / 4][0] + emulation::lane() % 4 * 4, words[m], "stmatrix");
}
/// Like storeMatrices, but a lane has column i / 4 of rows 2 (i % 4) and one more.
inline void storeMatricesTransposed(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const auto& all = emulation::meetWarp({address});
  const uint32_t words[4] = {a, b, c, d};
  const int l = emulation::lane();
  for (int m = 0; m < 4; m++)
    for (int e = 0; e < 2; e++) store(all[8 * m + 2 * (l % 4) + e][0] + l / 4 * 2, static_cast<uint16_t>(words[m] >> 16 * e), "stmatrix");
}
inline void storeMatricesTransposed(uint32_t address, uint32_t a, uint32_t b) {
  const auto& all = emulation::meetWarp({address});
  const uint32_t words[2] = {a, b};
  const int l = emulation::lane();
  for (int m = 0; m < 2; m++)
    for (int e = 0; e < 2; e++) store(all[8 * m + 2 * (l % 4) + e][0] + l / 4 * 2, static_cast<uint16_t>(words[m] >> 16 * e), "stmatrix");
}
inline uint4 loadMatricesTransposed(uint32_t address) {
  const auto& all = emulation::meetWarp({address});
  uint32_t words[4] = {};
  const int l = emulation::lane();
  for (int m = 0; m < 4; m++)
    for (int e = 0; e < 2; e++)
      words[m] |= static_cast<uint32_t>(load<uint16_t>(all[8 * m + 2 * (l % 4) + e][0] + l / 4 * 2, "ldmatrix")) << 16 * e;
  return {words[0], words[1], words[2], words[3]};
}

// --- mbarrier ---------------------------------------------------------------------------------------------------------

void barrierInit(uint32_t barrier, int count);
void barrierArrive(uint32_t barrier, int count = 1);
void barrierArriveExpect(uint32_t barrier, uint32_t bytes);
void barrierWait(uint32_t barrier, uint32_t parity);
void barrierInitFence();

// --- cluster ----------------------------------------------------------------------------------------------------------

inline uint32_t clusterRank() { return emulation::current->block; }
inline uint32_t clusterSize() { return emulation::clusterBlocks; }
inline uint32_t clusterAddress(uint32_t address, uint32_t block) { return (block + 1) * kWindow + address; }
inline void barrierArriveCluster(uint32_t barrier, int count = 1) { barrierArrive(barrier, count); }
void clusterArrive();
/// It tells of initialized barriers, and, as Hopper is (PTX promises nothing), that what this thread has used has been read.
void clusterArriveRelaxed();
void clusterWait();
inline float4 loadClusterFloat4(uint32_t address) { return load<float4>(address); }

// --- copy engine ------------------------------------------------------------------------------------------------------

extern const uint8_t *readable, *readableEnd;  // what bulk copies may read
void copyBulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier);
/// Reads this block's memory until the other block's barrier says that it is there.
void copyToBlock(uint32_t to, uint32_t from, uint32_t bytes, uint32_t barrier);
void storeAsync(uint32_t to, float4 v, uint32_t barrier);
void copyTile3(uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier);
inline void copyTile(uint32_t to, const CUtensorMap* map, int x, int y, uint32_t barrier) { copyTile3(to, map, x, y, 0, barrier); }
/// To the same place in each block of the mask, at whose own barrier it arrives.
inline void copyTile3Multicast(uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier, uint16_t mask) {
  for (int block = 0; block < emulation::clusterBlocks; block++)
    if (mask >> block & 1) copyTile3(clusterAddress(to, block), map, x, y, z, clusterAddress(barrier, block));
}
inline void copyTileMulticast(uint32_t to, const CUtensorMap* map, int x, int y, uint32_t barrier, uint16_t mask) {
  copyTile3Multicast(to, map, x, y, 0, barrier, mask);
}
inline void prefetchTensorMap(const CUtensorMap*) {}

void storeTile(const CUtensorMap* map, uint32_t from, int x, int y);
void storeBulk(void* to, uint32_t from, uint32_t bytes);
void storeCommit();
/// Until all but so many groups of this thread's copies have been read.
void waitForStores(size_t pending);
template <int kPending>
void storeWaitRead() {
  waitForStores(kPending);
}
template <int kPending>
void storeWait() {
  waitForStores(kPending);
}
inline void fenceAsyncShared() { races::fence(); }
inline void fenceAsync() { races::fence(); }

// --- asynchronous copies ----------------------------------------------------------------------------------------------

void copyAsync(uint32_t to, const void* from, uint32_t bytes);
inline void copyAsync(uint32_t to, const void* from) { copyAsync(to, from, 16); }
inline void copyAsyncOrZero(uint32_t to, const void* from, bool exists) {
  alignas(16) static const uint8_t zeros[16] = {};
  copyAsync(to, exists ? from : zeros);
}
inline void copyAsyncKept(uint32_t to, const void* from) { copyAsync(to, from); }
inline void copyAsync4(uint32_t to, const void* from) { copyAsync(to, from, 4); }
inline void copyCommit() {}
/// They arrive, and the clock knows.
void landAsyncCopies(races::Clock& clock);
template <int kLeft>
void copyWait() {
  static_assert(kLeft == 0);
  landAsyncCopies(races::mine());
}
/// Tells of the copies and of nothing else.
void copyAsyncArrive(uint32_t barrier);

// --- the rest ---------------------------------------------------------------------------------------------------------

template <int kRegisters>
void growRegisters() {}
template <int kRegisters>
void shrinkRegisters() {}
inline void storeGlobal16(void* to, uint4 v) { std::memcpy(to, &v, 16); }
inline void prefetchL2(const void*) {}
inline uint32_t addInOrder(uint32_t* to, uint32_t v) { return (*to += v) - v; }
inline void launchDependents() {}
inline void waitForPrevious() {}
inline void storeRelease(uint32_t* to, uint32_t v) { *to = v; }
inline uint32_t loadAcquire(const uint32_t* from) {
  if (*from == 0) emulation::yield();
  return *from;
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

void syncNamed(int id, int threads);

}  // namespace fireq::ptx
