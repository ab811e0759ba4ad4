// kernels/cuda/ptx.cuh on the host, as far as the kernels that are emulated use it. A bulk copy arrives when it is issued: one that
// overwrites what is still to be read shows; one that might, by races.h.
#pragma once
#include <deque>
#include <map>

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
inline Location locate(uint32_t address, uint32_t bytes) {
  const Location l{address < kWindow ? emulation::current->block : static_cast<int>(address / kWindow) - 1, address % kWindow};
  if (l.block >= emulation::clusterBlocks || l.at + bytes > kSharedBytes) emulation::fail("outside shared memory");
  if (l.block != emulation::current->block && emulation::blockHasEnded(l.block)) emulation::fail("in the shared memory of a block that has ended");
  return l;
}

template <class T>
T& sharedMemory() {
  return *reinterpret_cast<T*>(emulation::memoryOf(emulation::current->block));
}
inline uint32_t smemAddress(const void* p) {
  const int64_t at = static_cast<const uint8_t*>(p) - emulation::memoryOf(emulation::current->block);
  if (at < 0 || at >= kSharedBytes) emulation::fail("not an address in the block's shared memory");
  return static_cast<uint32_t>(at);
}

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

struct Barrier {
  int count = 0, arrived = 0;
  int64_t bytes = 0;
  uint32_t phase = 0;
  races::Clock now, before;

  void endIfComplete() {
    if (arrived != count || bytes != 0) return;
    arrived = 0;
    phase ^= 1;
    before.join(now);
    now = {};
    emulation::progress++;
  }
};
inline std::map<std::pair<int, uint32_t>, Barrier> barriers;  // by block and address

inline Barrier& barrierAt(uint32_t address, const char* what) {
  const Location l = locate(address, 8);
  const auto found = barriers.find({l.block, l.at});
  if (found == barriers.end()) emulation::fail("not a barrier, or not yet");
  races::expectRead(l.block, l.at, 8, races::Unit::kThread, what);
  return found->second;
}
inline void barrierInit(uint32_t barrier, int count) {
  const Location l = locate(barrier, 8);
  races::access(l.block, l.at, 8, true, races::Unit::kThread, "a barrier's initialization");
  barriers[{l.block, l.at}] = {count};
}
inline void barrierArrive(uint32_t barrier, int count = 1) {
  Barrier& b = barrierAt(barrier, "an arrival");
  if ((b.arrived += count) > b.count) emulation::fail("more arrive at a barrier than it counts");
  races::release(b.now);
  b.endIfComplete();
}
inline void barrierArriveExpect(uint32_t barrier, uint32_t bytes) {
  barrierAt(barrier, "an arrival").bytes += bytes;
  barrierArrive(barrier);
}
inline void barrierWait(uint32_t barrier, uint32_t parity) {
  Barrier& b = barrierAt(barrier, "a wait");
  emulation::waitWhile([&] { return b.phase == parity; });
  races::acquire(b.before);
}

// --- cluster ----------------------------------------------------------------------------------------------------------

inline uint32_t clusterRank() { return emulation::current->block; }
inline uint32_t clusterSize() { return emulation::clusterBlocks; }
inline uint32_t clusterAddress(uint32_t address, uint32_t block) { return (block + 1) * kWindow + address; }
inline void barrierArriveCluster(uint32_t barrier, int count = 1) { barrierArrive(barrier, count); }

/// Of each thread, up to which step its initialized barriers are seen by the whole cluster.
inline std::map<int, uint32_t> initialized;
inline void barrierInitFence() {
  initialized[emulation::current->number] = races::step();
  races::advance();
}

inline void arriveAtCluster() {
  emulation::clusterBarrier.arrivedIn[emulation::current->number] = emulation::clusterBarrier.round;
  emulation::endClusterRoundIfAllCame();
}
inline void clusterArrive() {
  races::release(emulation::clusterBarrier.now);
  arriveAtCluster();
}
/// It tells of initialized barriers, and, as Hopper is (PTX promises nothing), that what this thread has used has been read.
inline void clusterArriveRelaxed() {
  races::releaseRelaxed(emulation::clusterBarrier.now);
  const auto found = initialized.find(emulation::current->number);
  if (found != initialized.end()) races::end({found->first, found->second}, emulation::clusterBarrier.now);
  arriveAtCluster();
}
inline void clusterWait() {
  const long round = emulation::clusterBarrier.arrivedIn[emulation::current->number];
  emulation::waitWhile([&] { return emulation::clusterBarrier.round == round; });
  races::acquire(emulation::clusterBarrier.before);
}
inline float4 loadClusterFloat4(uint32_t address) { return load<float4>(address); }

// --- copy engine ------------------------------------------------------------------------------------------------------

inline const uint8_t *readable = nullptr, *readableEnd = nullptr;  // what bulk copies may read

/// Bytes that a copy brings: `write` puts them there.
template <class Write>
void bring(uint32_t to, uint32_t bytes, uint32_t barrier, const char* what, const Write& write) {
  const Location l = locate(to, bytes);
  Barrier& b = barrierAt(barrier, what);
  const auto copy = races::copyFor(&b);
  races::access(copy, l.block, l.at, bytes, true, what);
  write(l.bytes());
  races::end(copy, b.now);
  b.bytes -= bytes;
  b.endIfComplete();
}
inline void copyBulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  const auto* const source = static_cast<const uint8_t*>(from);
  if (source < readable || source + bytes > readableEnd) emulation::fail("a bulk copy from outside the cache");
  if (to % 16 || bytes % 16 || (source - readable) % 16) emulation::fail("a bulk copy that isn't aligned");
  bring(to, bytes, barrier, "a bulk copy", [&](uint8_t* at) { std::memcpy(at, source, bytes); });
}
/// Reads this block's memory until the other block's barrier says that it is there.
inline void copyToBlock(uint32_t to, uint32_t from, uint32_t bytes, uint32_t barrier) {
  if (to % 16 || from % 16 || bytes % 16) emulation::fail("a bulk copy that isn't aligned");
  const Location source = locate(from, bytes);
  Barrier& b = barrierAt(barrier, "a bulk copy");
  const auto reading = races::copyFor(&b);
  races::access(reading, source.block, source.at, bytes, false, "a bulk copy to another block");
  races::end(reading, b.now);
  bring(to, bytes, barrier, "a bulk copy from another block", [&](uint8_t* at) { std::memcpy(at, source.bytes(), bytes); });
}
inline void storeAsync(uint32_t to, float4 v, uint32_t barrier) {
  if (to % 16) emulation::fail("an asynchronous store that isn't aligned");
  bring(to, 16, barrier, "an asynchronous store", [&](uint8_t* at) { std::memcpy(at, &v, 16); });
}

/// A box, element by element: move(the element, null outside; its place in the box, swizzled as it lies from `at` on).
template <class Move>
void forBox(const CUtensorMap& map, uint32_t at, int x, int y, int z, const Move& move) {
  const int rowBytes = map.boxWidth * map.elementBytes, mask = map.swizzle / 16 - 1;
  if (rowBytes != map.swizzle || at % 1024) emulation::fail("a box that isn't swizzled as it lies");
  for (int i = 0; i < map.boxWidth * map.boxHeight * map.boxDepth; i++) {
    const int64_t column = x + i % map.boxWidth, row = y + i / map.boxWidth % map.boxHeight, plane = z + i / map.boxWidth / map.boxHeight;
    const bool inside = column < map.width && row < map.height && plane < map.depth;
    auto* const element = static_cast<uint8_t*>(map.data) + (plane * map.planeElements + row * map.rowElements + column) * map.elementBytes;
    const uint32_t flat = i * map.elementBytes;
    move(inside ? element : nullptr, flat ^ (flat >> 7 & mask) << 4);
  }
}
inline uint32_t boxBytes(const CUtensorMap& map) { return map.boxWidth * map.boxHeight * map.boxDepth * map.elementBytes; }

inline void copyTile3(uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier) {
  bring(to, boxBytes(*map), barrier, "a tile's copy", [&](uint8_t* at) {
    forBox(*map, to % kWindow, x, y, z, [&](const uint8_t* from, uint32_t place) {
      from ? std::memcpy(at + place, from, map->elementBytes) : std::memset(at + place, 0, map->elementBytes);
    });
  });
}
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

/// A thread's copies out of shared memory, group after group; the last one is open.
inline std::map<int, std::deque<std::vector<races::Copy>>> stores;
inline std::deque<std::vector<races::Copy>>& myStores() {
  auto& groups = stores[emulation::current->number];
  if (groups.empty()) groups.emplace_back();
  return groups;
}
inline const uint8_t* takeAway(uint32_t from, uint32_t bytes, const char* what) {
  const Location l = locate(from, bytes);
  const auto copy = races::copyOut();
  races::access(copy, l.block, l.at, bytes, false, what);
  myStores().back().push_back(copy);
  return l.bytes();
}
inline void storeTile(const CUtensorMap* map, uint32_t from, int x, int y) {
  const uint8_t* const at = takeAway(from, boxBytes(*map), "a tile's store");
  forBox(*map, from, x, y, 0, [&](uint8_t* to, uint32_t place) { to ? std::memcpy(to, at + place, map->elementBytes) : nullptr; });
}
inline void storeBulk(void* to, uint32_t from, uint32_t bytes) { std::memcpy(to, takeAway(from, bytes, "a bulk store"), bytes); }
inline void storeCommit() { myStores().emplace_back(); }
template <int kPending>
void storeWaitRead() {
  auto& groups = myStores();
  for (; groups.size() > kPending + 1; groups.pop_front())
    for (const auto& copy : groups.front()) races::end(copy, races::mine());
}
template <int kPending>
void storeWait() {
  storeWaitRead<kPending>();
}
inline void fenceAsyncShared() { races::fence(); }
inline void fenceAsync() { races::fence(); }

// --- asynchronous copies ----------------------------------------------------------------------------------------------

/// A thread's copies: they arrive when it waits for them or has them arrive at a barrier.
struct AsyncCopy {
  Location to;
  const void* from;
  uint32_t bytes;
};
inline std::map<int, std::vector<AsyncCopy>> asyncCopies;
inline void copyAsync(uint32_t to, const void* from, uint32_t bytes) {
  if (to % bytes || reinterpret_cast<uintptr_t>(from) % bytes) emulation::fail("an asynchronous copy that isn't aligned");
  const Location l = locate(to, bytes);
  races::access(races::asyncCopy(), l.block, l.at, bytes, true, "an asynchronous copy");
  asyncCopies[emulation::current->number].push_back({l, from, bytes});
}
inline void copyAsync(uint32_t to, const void* from) { copyAsync(to, from, 16); }
inline void copyAsyncOrZero(uint32_t to, const void* from, bool exists) {
  alignas(16) static const uint8_t zeros[16] = {};
  copyAsync(to, exists ? from : zeros);
}
inline void copyAsyncKept(uint32_t to, const void* from) { copyAsync(to, from); }
inline void copyAsync4(uint32_t to, const void* from) { copyAsync(to, from, 4); }
inline void landAsyncCopies(races::Clock& clock) {
  auto& copies = asyncCopies[emulation::current->number];
  for (const auto& c : copies) std::memcpy(c.to.bytes(), c.from, c.bytes);
  copies.clear();
  races::endAsyncCopies(clock);
}
inline void copyCommit() {}
template <int kLeft>
void copyWait() {
  static_assert(kLeft == 0);
  landAsyncCopies(races::mine());
}
/// Tells of the copies and of nothing else.
inline void copyAsyncArrive(uint32_t barrier) {
  Barrier& b = barrierAt(barrier, "an arrival of copies");
  landAsyncCopies(b.now);
  if (++b.arrived > b.count) emulation::fail("more arrive at a barrier than it counts");
  b.endIfComplete();
}

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

inline std::map<std::pair<int, int>, emulation::Meeting> named;  // barriers, by block and number
inline void syncNamed(int id, int threads) {
  auto& meeting = named.try_emplace({emulation::current->block, id}, threads).first->second;
  emulation::meet(meeting, emulation::current->index % threads, {}, true);
}

inline const bool begins = [] {
  emulation::beforeCluster.push_back([] {
    barriers.clear();
    initialized.clear();
    stores.clear();
    asyncCopies.clear();
    named.clear();
  });
  return true;
}();

}  // namespace fireq::ptx
