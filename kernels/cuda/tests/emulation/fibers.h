// A cluster of blocks of CUDA threads on the host, each thread a fiber: what threads do together happens when all of them have come there.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "races.h"

namespace fireq {
constexpr uint32_t kSharedBytes = 227 * 1024;
extern uint8_t memory[];  // the shared memory of a cluster's first block
}  // namespace fireq

namespace emulation {

/// Where a thread is.
struct Thread {
  int number = 0;  // in the cluster
  int index = 0;   // in its block
  int block = 0;   // in the cluster
};
extern const Thread* current;

using Words = std::array<uint32_t, 8>;

/// Threads that meet: each brings some words and gets those of all.
struct Meeting {
  int alive = 0, arrived = 0;
  long round = 0;
  std::vector<Words> brought, seen;
  races::Clock now, before;  // of what orders memory

  explicit Meeting(int threads) : alive(threads), brought(threads), seen(threads) {}
  void endIfAllCame();
};

/// barrier.cluster: who arrives goes on, and waits later or not at all.
struct ClusterBarrier {
  std::vector<long> arrivedIn;  // by thread: the last round it arrived in
  long round = 1;
  races::Clock now, before;
};

extern int blockThreads, firstBlock, blockIndexY, gridSize, clusterBlocks;
extern long progress;  // something that others may wait for has happened
extern std::vector<Meeting> warps, blocks;
extern ClusterBarrier clusterBarrier;
extern std::vector<void (*)()> beforeCluster;  // what else begins anew

uint8_t* memoryOf(int block);

/// The others' turn, as long as holds(what).
void waitWhile(bool (*holds)(const void*), const void* what);
template <class Condition>
void waitWhile(const Condition& holds) {
  if (holds()) waitWhile([](const void* what) { return (*static_cast<const Condition*>(what))(); }, &holds);
}
void yield();

/// orders: what these threads did before is before what they do afterwards. What it gives stays until the thread's next meeting.
const std::vector<Words>& meet(Meeting& meeting, int index, const Words& words, bool orders);
inline int lane() { return current->index % 32; }
Meeting& myWarp();
/// A warp's instruction; it orders nothing.
const std::vector<Words>& meetWarp(const Words& words);

void endClusterRoundIfAllCame();
bool blockHasEnded(int block);

/// Runs a grid of x · y blocks, cluster after cluster; x is a multiple of a cluster's blocks.
void launch(int x, int y, int blocksOfCluster, int threadsOfBlock, void (*entry)());

}  // namespace emulation
