// Finds accesses to shared memory that nothing orders, whether or not they went well this time. Each thread, and each copy of the copy
// engine, counts its steps and has a clock: up to which step it knows everybody's. A barrier passes on what those who arrive know to
// those who wait. An access races with an earlier one that its thread doesn't know of (vector clocks: Fidge 1988; Mattern 1989).
//
// Only what goes through ptx.cuh is seen, not what a kernel reads or writes by a pointer; and nothing in global memory.
#pragma once
#include <cstdint>
#include <vector>

namespace emulation {

[[noreturn]] void fail(const char* why);

namespace races {

/// Of everybody a step, 0 behind the end.
struct Steps {
  std::vector<uint32_t> steps;

  uint32_t of(int who) const { return who < static_cast<int>(steps.size()) ? steps[who] : 0; }
  void raise(int who, uint32_t to);
  void join(const Steps& other);
};

/// Up to which steps all has happened; of threads' plain writes, what the copy engine and the tensor cores see; and what is over, though
/// nobody promises to see what it wrote: enough for who overwrites what was read, or what a copy brought.
struct Clock {
  Steps known, shown, over;

  void join(const Clock& other) { known.join(other.known), shown.join(other.shown), over.join(other.over); }
};

extern int current;  // the thread
void begin(int threads, int blocks, int blockBytes);
Clock& mine();
uint32_t step();
void advance();

/// This thread lets others know of what it did.
void release(Clock& to);
void acquire(const Clock& from);
/// Like release, but it promises nothing of what this thread wrote. What it has read, and copies it has waited for, are over.
void releaseRelaxed(Clock& to);
/// What this thread knows of is seen by the copy engine and the tensor cores, too (fence.proxy.async).
void fence();

enum class Unit { kThread, kEngine };

/// An access of this thread's. unit: of what carries it out.
void access(int block, uint32_t from, uint32_t bytes, bool writes, Unit unit, const char* what);
/// A read would be well now.
void expectRead(int block, uint32_t from, uint32_t bytes, Unit unit, const char* what);
bool mayRead(int block, uint32_t from, uint32_t bytes, Unit unit);

/// Accesses that needn't be over when this thread goes on.
struct Copy {
  int by;
  uint32_t step;
};
/// One that will be over when the barrier's phase is.
Copy copyFor(const void* barrier);
/// One of the cp.async's of this thread that its next arrival or wait will end.
Copy asyncCopy();
/// One out of shared memory.
Copy copyOut();
/// What a warp's products read until its lanes have waited for them for the wait-th time.
Copy product(uint32_t wait);

void access(const Copy& copy, int block, uint32_t from, uint32_t bytes, bool writes, const char* what);
/// A read that may be, as mayRead has told.
void noteRead(const Copy& copy, int block, uint32_t from, uint32_t bytes, const char* what);
/// It is over, as who acquires the clock knows.
void end(const Copy& copy, Clock& clock);
void endAsyncCopies(Clock& clock);

}  // namespace races
}  // namespace emulation
