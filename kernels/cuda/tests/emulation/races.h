// Finds accesses to shared memory that nothing orders, whether or not they went well this time. Each thread, and each copy of the copy
// engine, counts its steps and has a clock: up to which step it knows everybody's. A barrier passes on what those who arrive know to
// those who wait. An access races with an earlier one that its thread doesn't know of (vector clocks: Fidge 1988; Mattern 1989).
//
// Only what goes through ptx.cuh is seen, not what a kernel reads or writes by a pointer; and nothing in global memory.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <vector>

namespace emulation {

[[noreturn]] inline void fail(const char* why) {
  std::puts(why);
  std::exit(1);
}

namespace races {

/// Of everybody a step, 0 behind the end.
struct Steps {
  std::vector<uint32_t> steps;

  uint32_t of(int who) const { return who < static_cast<int>(steps.size()) ? steps[who] : 0; }
  void raise(int who, uint32_t to) {
    if (who >= static_cast<int>(steps.size())) steps.resize(who + 1);
    steps[who] = std::max(steps[who], to);
  }
  void join(const Steps& other) {
    if (steps.size() < other.steps.size()) steps.resize(other.steps.size());
    for (size_t i = 0; i < other.steps.size(); i++) steps[i] = std::max(steps[i], other.steps[i]);
  }
};

/// Up to which steps all has happened; of threads' plain writes, what the copy engine and the tensor cores see; and what is over, though
/// nobody promises to see what it wrote: enough for who overwrites what was read, or what a copy brought.
struct Clock {
  Steps known, shown, over;

  void join(const Clock& other) { known.join(other.known), shown.join(other.shown), over.join(other.over); }
};

constexpr int kLineBytes = 16;

/// An access to some bytes of a line: of a thread, or of a copy (the engine's).
struct Access {
  int by;
  uint32_t step;
  uint16_t bytes;  // a bit each
  const char* what;
};
struct Line {
  std::vector<Access> reads, writes;  // that no write has covered since
};

// Who: threads; then of each thread its cp.async's, which an arrival or a wait ends all together; then its copies out of shared memory, which
// end in order; then each warp's products, which its next wait ends; then a thread's copies that one barrier waits for, all of them.
inline int current = 0, threadCount = 0, lineCount = 0;
inline std::vector<Clock> clocks;        // of threads
inline std::vector<uint32_t> otherSteps;  // of those that aren't threads
inline std::map<std::pair<int, const void*>, int> announced;  // who a thread's copies for a barrier are
inline std::vector<Line> lines;          // of all blocks of the cluster

inline void begin(int threads, int blocks, int blockBytes) {
  threadCount = threads, lineCount = blockBytes / kLineBytes;
  clocks.assign(threads, {});
  for (int i = 0; i < threads; i++) clocks[i].known.raise(i, 1);
  otherSteps.assign(2 * threads + threads / 32, 1);
  announced.clear();
  lines.assign(static_cast<size_t>(blocks) * lineCount, {});
}

inline Clock& mine() { return clocks[current]; }
inline uint32_t step() { return mine().known.of(current); }
inline void advance() { mine().known.steps[current]++; }

/// This thread lets others know of what it did.
inline void release(Clock& to) {
  to.join(mine());
  advance();
}
inline void acquire(const Clock& from) { mine().join(from); }
/// Like release, but it promises nothing of what this thread wrote. What it has read, and copies it has waited for, are over.
inline void releaseRelaxed(Clock& to) {
  to.over.join(mine().known);
  to.over.join(mine().over);
  advance();
}
/// What this thread knows of is seen by the copy engine and the tensor cores, too (fence.proxy.async).
inline void fence() {
  mine().shown = mine().known;
  advance();
}

enum class Unit { kThread, kEngine };

inline bool isThread(int by) { return by < threadCount; }
inline bool knows(const Access& a) { return mine().known.of(a.by) >= a.step; }
inline bool isOver(const Access& a) { return mine().over.of(a.by) >= a.step; }
inline bool sees(const Access& a) { return !isThread(a.by) || mine().shown.of(a.by) >= a.step; }

/// What it races with, if it does, and why.
struct Race {
  const Access* before = nullptr;
  const char* why = nullptr;
};
inline Race find(int line, uint16_t bytes, bool writes, Unit unit) {
  for (const Access& a : lines[line].writes)
    if (a.bytes & bytes) {
      if (!knows(a) && !(writes && !isThread(a.by) && isOver(a))) return {&a, "a race"};
      if (unit == Unit::kEngine && !writes && !sees(a)) return {&a, "no fence"};
    }
  if (writes)
    for (const Access& a : lines[line].reads)
      if (a.bytes & bytes && !knows(a) && !isOver(a)) return {&a, "a race"};
  return {};
}
inline void check(int line, uint16_t bytes, bool writes, Unit unit, const char* what) {
  const Race race = find(line, bytes, writes, unit);
  if (race.before == nullptr) return;
  std::printf("%s: thread %d: %s, at shared memory %d of block %d", race.why, current, what, line % lineCount * kLineBytes, line / lineCount);
  std::printf(isThread(race.before->by) ? " after %s of thread %d's\n" : " after %s\n", race.before->what, race.before->by);
  std::exit(1);
}

inline void cover(std::vector<Access>& accesses, uint16_t bytes) {
  for (Access& a : accesses) a.bytes &= ~bytes;
  std::erase_if(accesses, [](const Access& a) { return a.bytes == 0; });
}

inline void record(int line, const Access& a, bool writes) {
  Line& l = lines[line];
  if (writes) {
    cover(l.reads, a.bytes), cover(l.writes, a.bytes);
    l.writes.push_back(a);
    return;
  }
  for (Access& other : l.reads)
    if (other.by == a.by && other.bytes == a.bytes) {
      other.step = a.step;
      return;
    }
  l.reads.push_back(a);
}

/// f(line, its bytes) for each line of a range.
template <class F>
void forLines(int block, uint32_t from, uint32_t bytes, const F& f) {
  for (uint32_t at = from, end = from + bytes; at < end;) {
    const uint32_t line = at / kLineBytes, next = (line + 1) * kLineBytes, to = next < end ? next : end;
    f(static_cast<int>(block * lineCount + line), static_cast<uint16_t>(((1u << (to - at)) - 1) << at % kLineBytes));
    at = to;
  }
}

/// An access of this thread's. unit: of what carries it out.
inline void access(int block, uint32_t from, uint32_t bytes, bool writes, Unit unit, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) {
    check(line, mask, writes, unit, what);
    record(line, {current, step(), mask, what}, writes);
  });
}
/// A read would be well now.
inline void expectRead(int block, uint32_t from, uint32_t bytes, Unit unit, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) { check(line, mask, false, unit, what); });
}
inline bool mayRead(int block, uint32_t from, uint32_t bytes, Unit unit) {
  bool may = true;
  forLines(block, from, bytes, [&](int line, uint16_t mask) { may &= find(line, mask, false, unit).before == nullptr; });
  return may;
}

/// Accesses that needn't be over when this thread goes on.
struct Copy {
  int by;
  uint32_t step;
};
/// One that will be over when the barrier's phase is.
inline Copy copyFor(const void* barrier) {
  const auto [found, isNew] = announced.try_emplace({current, barrier}, threadCount + static_cast<int>(otherSteps.size()));
  if (isNew) otherSteps.push_back(0);
  return {found->second, ++otherSteps[found->second - threadCount]};
}
/// One of the cp.async's of this thread that its next arrival or wait will end.
inline Copy asyncCopy() { return {threadCount + current, otherSteps[current]}; }
/// One out of shared memory.
inline Copy copyOut() { return {2 * threadCount + current, ++otherSteps[threadCount + current]}; }
/// What a warp's products read until its lanes have waited for them for the wait-th time.
inline Copy product(uint32_t wait) { return {3 * threadCount + current / 32, wait}; }

inline void access(const Copy& copy, int block, uint32_t from, uint32_t bytes, bool writes, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) {
    check(line, mask, writes, Unit::kEngine, what);
    record(line, {copy.by, copy.step, mask, what}, writes);
  });
}
/// It is over, as who acquires the clock knows.
inline void end(const Copy& copy, Clock& clock) { clock.known.raise(copy.by, copy.step); }
inline void endAsyncCopies(Clock& clock) { end({threadCount + current, otherSteps[current]++}, clock); }

}  // namespace races
}  // namespace emulation
