// Whether races.h finds what it should and nothing else: `program SCENARIO` runs a small kernel in which everything is ordered, `program
// SCENARIO broken` the same with one thing left out.
#include <cstdio>
#include <string_view>

#include "ptx.cuh"

using namespace fireq;

static bool broken = false;
static const uint8_t source[64] = {};
static uint8_t sink[1024];
constexpr uint32_t kFull = 0, kEmpty = 8, kData = 1024;  // barriers, data

static int thread() { return emulation::current->index; }
static bool isFirst() { return thread() == 0; }

static void begin(int arrivals) {
  if (isFirst()) {
    ptx::barrierInit(kFull, 1);
    ptx::barrierInit(kEmpty, arrivals);
    ptx::barrierInitFence();
  }
  __syncthreads();
}
static void fetch(uint32_t to = kData) {
  ptx::barrierArriveExpect(kFull, 32);
  ptx::copyBulk(to, source, 32, kFull);
}

/// What a thread stores others load behind a barrier.
static void storeThenLoad() {
  if (isFirst()) ptx::storeShared16(kData, 1, 2, 3, 4);
  if (!broken) __syncthreads();
  ptx::loadShared4(kData + thread() % 4 * 4);
}

/// Threads' own bytes of a word don't race.
static void neighbours() { ptx::store(kData + (broken ? 0 : thread()), uint8_t{1}); }

static void copyThenLoad() {
  begin(1);
  if (isFirst()) fetch();
  if (!broken) ptx::barrierWait(kFull, 0);
  ptx::loadShared4(kData);
}

/// A stage is filled again once a warp has left it: one lane tells, so the others' loads must be before that.
static void refill() {
  begin(1);
  if (isFirst()) fetch();
  if (thread() / 32 == 1) {
    ptx::barrierWait(kFull, 0);
    ptx::loadShared4(kData + thread() % 8 * 4);
    if (!broken) __syncwarp();
    if (thread() % 32 == 0) ptx::barrierArrive(kEmpty);
  } else if (isFirst()) {
    ptx::barrierWait(kEmpty, 0);
    fetch();
  }
}

/// Shuffles and votes order nothing.
static void shuffle() {
  ptx::storeSharedFloat(kData + thread() * 4, 1);
  broken ? static_cast<void>(__shfl_sync(~0u, thread(), 0)) : __syncwarp();
  ptx::loadSharedFloat(kData + (thread() ^ 1) * 4);
}

/// The copy engine sees what threads stored once they have fenced it.
static void storeOut() {
  ptx::storeShared16(kData + thread() * 16, 1, 2, 3, 4);
  if (!broken) ptx::fenceAsyncShared();
  __syncthreads();
  if (isFirst()) ptx::storeBulk(sink, kData, sizeof sink);
}

/// What is on its way out must not be overwritten.
static void overwrite() {
  if (!isFirst()) return;
  ptx::storeBulk(sink, kData, sizeof sink);
  ptx::storeCommit();
  if (!broken) ptx::storeWaitRead<0>();
  ptx::storeShared16(kData, 1, 2, 3, 4);
}

/// cp.async's arrival tells of the copies, and not of other stores.
static void asynchronousCopies() {
  begin(1);
  if (isFirst()) {
    broken ? ptx::storeShared16(kData, 1, 2, 3, 4) : ptx::copyAsync(kData, source);
    ptx::copyAsyncArrive(kFull);
  }
  ptx::barrierWait(kFull, 0);
  ptx::loadShared16(kData);
}

/// Barriers are there for all once the threads have met.
static void initialize() {
  if (isFirst()) {
    ptx::barrierInit(kFull, 1);
    ptx::barrierInitFence();
  }
  if (!broken) __syncthreads();
  if (thread() == 33) ptx::barrierArrive(kFull);
}

/// A block copies into its neighbour's memory once that one has said so.
static void neighbour() {
  begin(1);
  ptx::clusterArriveRelaxed();
  ptx::clusterWait();
  if (!isFirst()) return;
  if (ptx::clusterRank() == 0) {
    fetch();
    ptx::barrierWait(kFull, 0);
    ptx::loadShared4(kData);
    ptx::barrierArriveCluster(ptx::clusterAddress(kEmpty, 1));
    ptx::barrierArriveExpect(kFull, 32);
    ptx::barrierWait(kFull, 1);
  } else {
    if (!broken) ptx::barrierWait(kEmpty, 0);
    ptx::copyBulk(ptx::clusterAddress(kData, 0), source, 32, ptx::clusterAddress(kFull, 0));
  }
}

struct Scenario {
  std::string_view name;
  void (*kernel)();
  int blocks = 1;
};
constexpr Scenario kScenarios[] = {
    {"store then load", storeThenLoad},
    {"neighbouring bytes", neighbours},
    {"copy then load", copyThenLoad},
    {"refill", refill},
    {"shuffle", shuffle},
    {"store out", storeOut},
    {"overwrite", overwrite},
    {"asynchronous copies", asynchronousCopies},
    {"initialize", initialize},
    {"neighbour", neighbour, 2},
};

int main(int count, char** arguments) {
  if (count == 1) {
    for (const Scenario& s : kScenarios) std::printf("%s\n", s.name.data());
    return 0;
  }
  broken = count == 3;
  ptx::readable = source, ptx::readableEnd = source + sizeof source;
  for (const Scenario& s : kScenarios)
    if (s.name == arguments[1]) {
      emulation::launch(s.blocks, 1, s.blocks, 64, s.kernel);
      return 0;
    }
  emulation::fail("no such scenario");
}
