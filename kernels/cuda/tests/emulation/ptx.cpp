#include "ptx.cuh"

#include <deque>
#include <map>

namespace fireq::ptx {

Location locate(uint32_t address, uint32_t bytes) {
  const Location l{address < kWindow ? emulation::current->block : static_cast<int>(address / kWindow) - 1, address % kWindow};
  if (l.block >= emulation::clusterBlocks || l.at + bytes > kSharedBytes) emulation::fail("outside shared memory");
  if (l.block != emulation::current->block && emulation::blockHasEnded(l.block)) emulation::fail("in the shared memory of a block that has ended");
  return l;
}

uint32_t smemAddress(const void* p) {
  const int64_t at = static_cast<const uint8_t*>(p) - emulation::memoryOf(emulation::current->block);
  if (at < 0 || at >= kSharedBytes) emulation::fail("not an address in the block's shared memory");
  return static_cast<uint32_t>(at);
}

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
static std::map<std::pair<int, uint32_t>, Barrier> barriers;  // by block and address

static Barrier& barrierAt(uint32_t address, const char* what) {
  const Location l = locate(address, 8);
  const auto found = barriers.find({l.block, l.at});
  if (found == barriers.end()) emulation::fail("not a barrier, or not yet");
  races::expectRead(l.block, l.at, 8, races::Unit::kThread, what);
  return found->second;
}
void barrierInit(uint32_t barrier, int count) {
  const Location l = locate(barrier, 8);
  races::access(l.block, l.at, 8, true, races::Unit::kThread, "a barrier's initialization");
  barriers[{l.block, l.at}] = {count};
}
void barrierArrive(uint32_t barrier, int count) {
  Barrier& b = barrierAt(barrier, "an arrival");
  if ((b.arrived += count) > b.count) emulation::fail("more arrive at a barrier than it counts");
  races::release(b.now);
  b.endIfComplete();
}
void barrierArriveExpect(uint32_t barrier, uint32_t bytes) {
  barrierAt(barrier, "an arrival").bytes += bytes;
  barrierArrive(barrier);
}
void barrierWait(uint32_t barrier, uint32_t parity) {
  Barrier& b = barrierAt(barrier, "a wait");
  emulation::waitWhile([&] { return b.phase == parity; });
  races::acquire(b.before);
}

/// Of each thread, up to which step its initialized barriers are seen by the whole cluster.
static std::map<int, uint32_t> initialized;
void barrierInitFence() {
  initialized[emulation::current->number] = races::step();
  races::advance();
}

static void arriveAtCluster() {
  emulation::clusterBarrier.arrivedIn[emulation::current->number] = emulation::clusterBarrier.round;
  emulation::endClusterRoundIfAllCame();
}
void clusterArrive() {
  races::release(emulation::clusterBarrier.now);
  arriveAtCluster();
}
void clusterArriveRelaxed() {
  races::releaseRelaxed(emulation::clusterBarrier.now);
  const auto found = initialized.find(emulation::current->number);
  if (found != initialized.end()) races::end({found->first, found->second}, emulation::clusterBarrier.now);
  arriveAtCluster();
}
void clusterWait() {
  const long round = emulation::clusterBarrier.arrivedIn[emulation::current->number];
  emulation::waitWhile([&] { return emulation::clusterBarrier.round == round; });
  races::acquire(emulation::clusterBarrier.before);
}

const uint8_t *readable = nullptr, *readableEnd = nullptr;

/// Where a copy, which is told of as if it had arrived, is to put its bytes.
static uint8_t* bring(uint32_t to, uint32_t bytes, uint32_t barrier, const char* what) {
  const Location l = locate(to, bytes);
  Barrier& b = barrierAt(barrier, what);
  const auto copy = races::copyFor(&b);
  races::access(copy, l.block, l.at, bytes, true, what);
  races::end(copy, b.now);
  b.bytes -= bytes;
  b.endIfComplete();
  return l.bytes();
}
void copyBulk(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  const auto* const source = static_cast<const uint8_t*>(from);
  if (source < readable || source + bytes > readableEnd) emulation::fail("a bulk copy from outside the cache");
  if (to % 16 || bytes % 16 || (source - readable) % 16) emulation::fail("a bulk copy that isn't aligned");
  std::memcpy(bring(to, bytes, barrier, "a bulk copy"), source, bytes);
}
void copyToBlock(uint32_t to, uint32_t from, uint32_t bytes, uint32_t barrier) {
  if (to % 16 || from % 16 || bytes % 16) emulation::fail("a bulk copy that isn't aligned");
  const Location source = locate(from, bytes);
  Barrier& b = barrierAt(barrier, "a bulk copy");
  const auto reading = races::copyFor(&b);
  races::access(reading, source.block, source.at, bytes, false, "a bulk copy to another block");
  races::end(reading, b.now);
  std::memcpy(bring(to, bytes, barrier, "a bulk copy from another block"), source.bytes(), bytes);
}
void storeAsync(uint32_t to, float4 v, uint32_t barrier) {
  if (to % 16) emulation::fail("an asynchronous store that isn't aligned");
  std::memcpy(bring(to, 16, barrier, "an asynchronous store"), &v, 16);
}

/// A box, element by element: move(the element, null outside; its place in the box, swizzled as it lies from `at` on).
template <class Move>
static void forBox(const CUtensorMap& map, uint32_t at, int x, int y, int z, const Move& move) {
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
static uint32_t boxBytes(const CUtensorMap& map) { return map.boxWidth * map.boxHeight * map.boxDepth * map.elementBytes; }

void copyTile3(uint32_t to, const CUtensorMap* map, int x, int y, int z, uint32_t barrier) {
  uint8_t* const at = bring(to, boxBytes(*map), barrier, "a tile's copy");
  forBox(*map, to % kWindow, x, y, z, [&](const uint8_t* from, uint32_t place) {
    from ? std::memcpy(at + place, from, map->elementBytes) : std::memset(at + place, 0, map->elementBytes);
  });
}

/// A thread's copies out of shared memory, group after group; the last one is open.
static std::map<int, std::deque<std::vector<races::Copy>>> stores;
static std::deque<std::vector<races::Copy>>& myStores() {
  auto& groups = stores[emulation::current->number];
  if (groups.empty()) groups.emplace_back();
  return groups;
}
static const uint8_t* takeAway(uint32_t from, uint32_t bytes, const char* what) {
  const Location l = locate(from, bytes);
  const auto copy = races::copyOut();
  races::access(copy, l.block, l.at, bytes, false, what);
  myStores().back().push_back(copy);
  return l.bytes();
}
void storeTile(const CUtensorMap* map, uint32_t from, int x, int y) {
  const uint8_t* const at = takeAway(from, boxBytes(*map), "a tile's store");
  forBox(*map, from, x, y, 0, [&](uint8_t* to, uint32_t place) { to ? std::memcpy(to, at + place, map->elementBytes) : nullptr; });
}
void storeBulk(void* to, uint32_t from, uint32_t bytes) { std::memcpy(to, takeAway(from, bytes, "a bulk store"), bytes); }
void storeCommit() { myStores().emplace_back(); }
void waitForStores(size_t pending) {
  auto& groups = myStores();
  for (; groups.size() > pending + 1; groups.pop_front())
    for (const auto& copy : groups.front()) races::end(copy, races::mine());
}

/// A thread's copies: they arrive when it waits for them or has them arrive at a barrier.
struct AsyncCopy {
  Location to;
  const void* from;
  uint32_t bytes;
};
static std::map<int, std::vector<AsyncCopy>> asyncCopies;
void copyAsync(uint32_t to, const void* from, uint32_t bytes) {
  if (to % bytes || reinterpret_cast<uintptr_t>(from) % bytes) emulation::fail("an asynchronous copy that isn't aligned");
  const Location l = locate(to, bytes);
  races::access(races::asyncCopy(), l.block, l.at, bytes, true, "an asynchronous copy");
  asyncCopies[emulation::current->number].push_back({l, from, bytes});
}
void landAsyncCopies(races::Clock& clock) {
  auto& copies = asyncCopies[emulation::current->number];
  for (const auto& c : copies) std::memcpy(c.to.bytes(), c.from, c.bytes);
  copies.clear();
  races::endAsyncCopies(clock);
}
void copyAsyncArrive(uint32_t barrier) {
  Barrier& b = barrierAt(barrier, "an arrival of copies");
  landAsyncCopies(b.now);
  if (++b.arrived > b.count) emulation::fail("more arrive at a barrier than it counts");
  b.endIfComplete();
}

static std::map<std::pair<int, int>, emulation::Meeting> named;  // barriers, by block and number
void syncNamed(int id, int threads) {
  auto& meeting = named.try_emplace({emulation::current->block, id}, threads).first->second;
  emulation::meet(meeting, emulation::current->index % threads, {}, true);
}

[[maybe_unused]] static const bool begins = [] {
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
