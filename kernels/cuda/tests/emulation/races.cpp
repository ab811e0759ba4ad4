#include "races.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace emulation {

void fail(const char* why) {
  std::puts(why);
  std::exit(1);
}

namespace races {

void Steps::raise(int who, uint32_t to) {
  if (who >= static_cast<int>(steps.size())) steps.resize(who + 1);
  steps[who] = std::max(steps[who], to);
}
void Steps::join(const Steps& other) {
  if (steps.size() < other.steps.size()) steps.resize(other.steps.size());
  for (size_t i = 0; i < other.steps.size(); i++) steps[i] = std::max(steps[i], other.steps[i]);
}

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
int current = 0;
static int threadCount = 0, lineCount = 0;
static std::vector<Clock> clocks;        // of threads
static std::vector<uint32_t> otherSteps;  // of those that aren't threads
static std::map<std::pair<int, const void*>, int> announced;  // who a thread's copies for a barrier are
static std::vector<Line> lines;          // of all blocks of the cluster

void begin(int threads, int blocks, int blockBytes) {
  threadCount = threads, lineCount = blockBytes / kLineBytes;
  clocks.assign(threads, {});
  for (int i = 0; i < threads; i++) clocks[i].known.raise(i, 1);
  otherSteps.assign(2 * threads + threads / 32, 1);
  announced.clear();
  lines.assign(static_cast<size_t>(blocks) * lineCount, {});
}

Clock& mine() { return clocks[current]; }
uint32_t step() { return mine().known.of(current); }
void advance() { mine().known.steps[current]++; }

void release(Clock& to) {
  to.join(mine());
  advance();
}
void acquire(const Clock& from) { mine().join(from); }
void releaseRelaxed(Clock& to) {
  to.over.join(mine().known);
  to.over.join(mine().over);
  advance();
}
void fence() {
  mine().shown = mine().known;
  advance();
}

static bool isThread(int by) { return by < threadCount; }
static bool knows(const Access& a) { return mine().known.of(a.by) >= a.step; }
static bool isOver(const Access& a) { return mine().over.of(a.by) >= a.step; }
static bool sees(const Access& a) { return !isThread(a.by) || mine().shown.of(a.by) >= a.step; }

/// What it races with, if it does, and why.
struct Race {
  const Access* before = nullptr;
  const char* why = nullptr;
};
static Race find(int line, uint16_t bytes, bool writes, Unit unit) {
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
static void check(int line, uint16_t bytes, bool writes, Unit unit, const char* what) {
  const Race race = find(line, bytes, writes, unit);
  if (race.before == nullptr) return;
  std::printf("%s: thread %d: %s, at shared memory %d of block %d", race.why, current, what, line % lineCount * kLineBytes, line / lineCount);
  std::printf(isThread(race.before->by) ? " after %s of thread %d's\n" : " after %s\n", race.before->what, race.before->by);
  std::exit(1);
}

static void cover(std::vector<Access>& accesses, uint16_t bytes) {
  for (Access& a : accesses) a.bytes &= ~bytes;
  std::erase_if(accesses, [](const Access& a) { return a.bytes == 0; });
}

static void record(int line, const Access& a, bool writes) {
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
static void forLines(int block, uint32_t from, uint32_t bytes, const F& f) {
  for (uint32_t at = from, end = from + bytes; at < end;) {
    const uint32_t line = at / kLineBytes, next = (line + 1) * kLineBytes, to = next < end ? next : end;
    f(static_cast<int>(block * lineCount + line), static_cast<uint16_t>(((1u << (to - at)) - 1) << at % kLineBytes));
    at = to;
  }
}

void access(int block, uint32_t from, uint32_t bytes, bool writes, Unit unit, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) {
    check(line, mask, writes, unit, what);
    record(line, {current, step(), mask, what}, writes);
  });
}
void expectRead(int block, uint32_t from, uint32_t bytes, Unit unit, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) { check(line, mask, false, unit, what); });
}
bool mayRead(int block, uint32_t from, uint32_t bytes, Unit unit) {
  bool may = true;
  forLines(block, from, bytes, [&](int line, uint16_t mask) { may &= find(line, mask, false, unit).before == nullptr; });
  return may;
}

Copy copyFor(const void* barrier) {
  const auto [found, isNew] = announced.try_emplace({current, barrier}, threadCount + static_cast<int>(otherSteps.size()));
  if (isNew) otherSteps.push_back(0);
  return {found->second, ++otherSteps[found->second - threadCount]};
}
Copy asyncCopy() { return {threadCount + current, otherSteps[current]}; }
Copy copyOut() { return {2 * threadCount + current, ++otherSteps[threadCount + current]}; }
Copy product(uint32_t wait) { return {3 * threadCount + current / 32, wait}; }

void access(const Copy& copy, int block, uint32_t from, uint32_t bytes, bool writes, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) {
    check(line, mask, writes, Unit::kEngine, what);
    record(line, {copy.by, copy.step, mask, what}, writes);
  });
}
void noteRead(const Copy& copy, int block, uint32_t from, uint32_t bytes, const char* what) {
  forLines(block, from, bytes, [&](int line, uint16_t mask) { record(line, {copy.by, copy.step, mask, what}, false); });
}
void end(const Copy& copy, Clock& clock) { clock.known.raise(copy.by, copy.step); }
void endAsyncCopies(Clock& clock) { end({threadCount + current, otherSteps[current]++}, clock); }

}  // namespace races
}  // namespace emulation
