#include "fibers.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>

namespace fireq {
alignas(1024) uint8_t memory[kSharedBytes];
}

namespace emulation {

struct Fiber : Thread {
  ucontext_t start;  // where it begins
  jmp_buf place;     // where it goes on; unlike swapcontext, jumps make no system calls
  bool (*waits)(const void*) = nullptr;  // whether it still does, told what for
  const void* what = nullptr;
  std::unique_ptr<char[]> stack;
  bool done = false;
};

constexpr int kStackBytes = 64 << 10;
static jmp_buf scheduler;
static std::vector<Fiber> threads;
static Fiber* running = nullptr;
static void (*kernel)() = nullptr;
const Thread* current = nullptr;
int blockThreads = 0, firstBlock = 0, blockIndexY = 0, gridSize = 1, clusterBlocks = 1;
long progress = 0;
std::vector<Meeting> warps, blocks;
ClusterBarrier clusterBarrier;
constinit std::vector<void (*)()> beforeCluster;  // before what others add at the start

/// The others' shared memory.
struct alignas(1024) SharedMemory { uint8_t bytes[fireq::kSharedBytes]; };
static std::vector<std::unique_ptr<SharedMemory>> otherMemory;
uint8_t* memoryOf(int block) { return block == 0 ? fireq::memory : otherMemory.at(block - 1)->bytes; }

void yield() {
  if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}
void waitWhile(bool (*holds)(const void*), const void* what) {
  running->waits = holds, running->what = what;
  yield();
}
/// The thread's turn.
static void resume(Fiber& t, bool begins) {
  running = &t, current = &t, races::current = t.number;
  t.waits = nullptr;
  if (_setjmp(scheduler) != 0) return;
  if (begins) setcontext(&t.start);
  _longjmp(t.place, 1);
}

void Meeting::endIfAllCame() {
  if (arrived == 0 || arrived != alive) return;
  arrived = 0;
  seen = brought;
  before = std::move(now), now = {};
  round++;
}
const std::vector<Words>& meet(Meeting& meeting, int index, const Words& words, bool orders) {
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
Meeting& myWarp() { return warps[current->number / 32]; }
const std::vector<Words>& meetWarp(const Words& words) { return meet(myWarp(), lane(), words, false); }

void endClusterRoundIfAllCame() {
  ClusterBarrier& b = clusterBarrier;
  for (const Fiber& t : threads)
    if (!t.done && b.arrivedIn[t.number] != b.round) return;
  b.before = b.now;
  b.round++;
  progress++;
}

bool blockHasEnded(int block) {
  const auto first = threads.begin() + block * blockThreads;
  return std::all_of(first, first + blockThreads, [](const Fiber& t) { return t.done; });
}

static void runThread() {
  kernel();
  for (Meeting* meeting : {&myWarp(), &blocks[current->block]}) {
    meeting->alive--;
    meeting->endIfAllCame();
  }
  running->done = true;
  endClusterRoundIfAllCame();
  progress++;
  yield();
}

/// Runs a cluster to its end. Threads take turns; if none gets on, they wait for each other for ever.
static void runCluster() {
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
    Fiber& t = threads[i];
    t.number = i, t.index = i % blockThreads, t.block = i / blockThreads, t.done = false;
    if (!t.stack) t.stack.reset(new char[kStackBytes]);
    getcontext(&t.start);
    t.start.uc_stack.ss_sp = t.stack.get();
    t.start.uc_stack.ss_size = kStackBytes;
    t.start.uc_link = nullptr;
    makecontext(&t.start, runThread, 0);
  }
  for (Fiber& t : threads) resume(t, true);
  for (bool left = true; left;) {
    const long before = progress;
    left = false;
    for (Fiber& t : threads) {
      if (t.done) continue;
      left = true;
      if (t.waits == nullptr || !t.waits(t.what)) resume(t, false);
    }
    if (left && progress == before) fail("the threads wait for each other for ever");
  }
}

void launch(int x, int y, int blocksOfCluster, int threadsOfBlock, void (*entry)()) {
  gridSize = x, clusterBlocks = blocksOfCluster, blockThreads = threadsOfBlock, kernel = entry;
  for (blockIndexY = 0; blockIndexY < y; blockIndexY++)
    for (firstBlock = 0; firstBlock < x; firstBlock += clusterBlocks) runCluster();
}

}  // namespace emulation
