// A cluster of blocks of CUDA threads on the host, each thread a fiber: what threads do together happens when all of them have come there.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "races.h"

namespace fireq {
constexpr uint32_t kSharedBytes = 227 * 1024;
extern uint8_t memory[];  // the shared memory of a cluster's first block
}  // namespace fireq

namespace emulation {

struct Thread {
  ucontext_t start;      // where it begins
  jmp_buf place;         // where it goes on; unlike swapcontext, jumps make no system calls
  bool (*waits)(const void*) = nullptr;  // whether it still does, told its condition
  const void* condition = nullptr;
  std::unique_ptr<char[]> stack;
  int number = 0;  // in the cluster
  int index = 0;   // in its block
  int block = 0;   // in the cluster
  bool done = false;
};

using Words = std::array<uint32_t, 8>;

/// Threads that meet: each brings some words and gets those of all.
struct Meeting {
  int alive = 0, arrived = 0;
  long round = 0;
  std::vector<Words> brought, seen;
  races::Clock now, before;  // of what orders memory

  explicit Meeting(int threads) : alive(threads), brought(threads), seen(threads) {}
  void endIfAllCame() {
    if (arrived == 0 || arrived != alive) return;
    arrived = 0;
    seen = brought;
    before = std::move(now), now = {};
    round++;
  }
};

/// barrier.cluster: who arrives goes on, and waits later or not at all.
struct ClusterBarrier {
  std::vector<long> arrivedIn;  // by thread: the last round it arrived in
  long round = 1;
  races::Clock now, before;
};

constexpr int kStackBytes = 64 << 10;
inline jmp_buf scheduler;
inline Thread* current = nullptr;
inline std::vector<Thread> threads;
inline int blockThreads = 0, firstBlock = 0, blockIndexY = 0, gridSize = 1, clusterBlocks = 1;
inline long progress = 0;  // something that others may wait for has happened
inline std::vector<Meeting> warps, blocks;
inline ClusterBarrier clusterBarrier;
inline void (*kernel)() = nullptr;
inline std::vector<void (*)()> beforeCluster;  // what else begins anew

/// The others' shared memory.
struct alignas(1024) SharedMemory { uint8_t bytes[fireq::kSharedBytes]; };
inline std::vector<std::unique_ptr<SharedMemory>> otherMemory;
inline uint8_t* memoryOf(int block) { return block == 0 ? fireq::memory : otherMemory.at(block - 1)->bytes; }

inline void yield() {
  if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}
/// The others' turn, as long as this holds.
template <class Condition>
void waitWhile(const Condition& holds) {
  if (!holds()) return;
  current->condition = &holds;
  current->waits = [](const void* condition) { return (*static_cast<const Condition*>(condition))(); };
  yield();
}
/// The thread's turn.
inline void resume(Thread& t, bool begins) {
  current = &t, races::current = t.number;
  t.waits = nullptr;
  if (_setjmp(scheduler) != 0) return;
  if (begins) setcontext(&t.start);
  _longjmp(t.place, 1);
}

/// orders: what these threads did before is before what they do afterwards.
inline const std::vector<Words>& meet(Meeting& meeting, int index, const Words& words, bool orders) {
  const long round = meeting.round;
  meeting.brought[index] = words;
  if (orders) races::release(meeting.now);
  meeting.arrived++;
  progress++;
  meeting.endIfAllCame();
  waitWhile([&] { return meeting.round == round; });
  if (orders) races::acquire(meeting.before);
  return meeting.seen;
}
inline int lane() { return current->index % 32; }
inline Meeting& myWarp() { return warps[current->number / 32]; }
/// A warp's instruction; it orders nothing.
inline const std::vector<Words>& meetWarp(const Words& words) { return meet(myWarp(), lane(), words, false); }

inline void endClusterRoundIfAllCame() {
  ClusterBarrier& b = clusterBarrier;
  for (const Thread& t : threads)
    if (!t.done && b.arrivedIn[t.number] != b.round) return;
  b.before = b.now;
  b.round++;
  progress++;
}

inline bool blockHasEnded(int block) {
  const auto first = threads.begin() + block * blockThreads;
  return std::all_of(first, first + blockThreads, [](const Thread& t) { return t.done; });
}

inline void runThread() {
  kernel();
  for (Meeting* meeting : {&myWarp(), &blocks[current->block]}) {
    meeting->alive--;
    meeting->endIfAllCame();
  }
  current->done = true;
  endClusterRoundIfAllCame();
  progress++;
  yield();
}

/// Runs a cluster to its end. Threads take turns; if none gets on, they wait for each other for ever.
inline void runCluster() {
  const int count = clusterBlocks * blockThreads;
  while (static_cast<int>(otherMemory.size()) < clusterBlocks - 1) otherMemory.push_back(std::make_unique<SharedMemory>());
  for (int i = 0; i < clusterBlocks; i++) std::memset(memoryOf(i), 0xff, fireq::kSharedBytes);
  races::begin(count, clusterBlocks, fireq::kSharedBytes);
  warps.assign(count / 32, Meeting(32));
  blocks.assign(clusterBlocks, Meeting(blockThreads));
  clusterBarrier = {std::vector<long>(count)};
  for (const auto begin : beforeCluster) begin();
  threads.resize(count);
  for (int i = 0; i < count; i++) {
    Thread& t = threads[i];
    t.number = i, t.index = i % blockThreads, t.block = i / blockThreads, t.done = false;
    if (!t.stack) t.stack.reset(new char[kStackBytes]);
    getcontext(&t.start);
    t.start.uc_stack.ss_sp = t.stack.get();
    t.start.uc_stack.ss_size = kStackBytes;
    t.start.uc_link = nullptr;
    makecontext(&t.start, runThread, 0);
  }
  for (Thread& t : threads) resume(t, true);
  for (bool left = true; left;) {
    const long before = progress;
    left = false;
    for (Thread& t : threads) {
      if (t.done) continue;
      left = true;
      if (t.waits == nullptr || !t.waits(t.condition)) resume(t, false);
    }
    if (left && progress == before) fail("the threads wait for each other for ever");
  }
}

/// Runs a grid of x · y blocks, cluster after cluster; x is a multiple of a cluster's blocks.
inline void launch(int x, int y, int blocksOfCluster, int threadsOfBlock, void (*entry)()) {
  gridSize = x, clusterBlocks = blocksOfCluster, blockThreads = threadsOfBlock, kernel = entry;
  for (blockIndexY = 0; blockIndexY < y; blockIndexY++)
    for (firstBlock = 0; firstBlock < x; firstBlock += clusterBlocks) runCluster();
}

}  // namespace emulation
