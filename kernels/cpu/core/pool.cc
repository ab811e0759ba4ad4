#include "pool.h"

#include <chrono>
#include <utility>

#include "error.h"

namespace fireq {

namespace {

constexpr uint64_t kClosed = 0xffffffff;
constexpr auto kSpin = std::chrono::microseconds(60);  // longer than the gap between two ops of a decode step

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

/// Waits for a condition: spins a little, then lets others run.
template <class Condition>
void waitUntil(Condition&& condition) {
  for (int i = 0; i < 2000; i++) {
    if (condition()) return;
    pause();
  }
  while (!condition()) std::this_thread::yield();
}

}  // namespace

Pool::Pool(int threads) : threads_(threads), ticket_(kClosed) {
  workers_.emplace_back([this] { driver(); });
  for (int worker = 1; worker < threads; worker++) workers_.emplace_back([this, worker] { helper(worker); });
}

Pool::~Pool() {
  {
    std::lock_guard lock(queue_mutex_);
    stopping_ = true;
  }
  queue_changed_.notify_all();
  workers_.front().join();
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (size_t worker = 1; worker < workers_.size(); worker++) workers_[worker].join();
}

void Pool::submit(std::function<void()> job) {
  {
    std::lock_guard lock(queue_mutex_);
    queue_.push_back(std::move(job));
  }
  queue_changed_.notify_one();
}

void Pool::driver() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(queue_mutex_);
      queue_changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    job();
  }
}

void Pool::run(const Loop& loop) {
  if (loop.count >= static_cast<int64_t>(kClosed)) throw Error("a loop of more than 2³² steps");
  if (threads_ == 1 || loop.count <= 1) {
    for (int64_t i = 0; i < loop.count; i++) {
      if (loop.stop->load(std::memory_order_relaxed)) break;
      loop.call(loop.context, i, 0);
    }
    return;
  }
  const uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  std::atomic_thread_fence(std::memory_order_seq_cst);  // the ticket was seen closed before any field changes
  call_.store(loop.call, std::memory_order_relaxed);
  context_.store(loop.context, std::memory_order_relaxed);
  count_.store(static_cast<uint32_t>(loop.count), std::memory_order_relaxed);
  stop_.store(loop.stop, std::memory_order_relaxed);
  done_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  ticket_.store(number << 32, std::memory_order_release);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  work(0);
  waitUntil([&] { return done_.load(std::memory_order_acquire) == loop.count; });
  ticket_.store(number << 32 | kClosed, std::memory_order_release);
  if (failed_.load(std::memory_order_relaxed)) {
    std::lock_guard lock(failure_mutex_);
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

void Pool::work(int worker) {
  for (;;) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    const auto call = call_.load(std::memory_order_relaxed);
    const void* const context = context_.load(std::memory_order_relaxed);
    const auto* const stop = stop_.load(std::memory_order_relaxed);
    const uint64_t index = ticket & kClosed;
    if (index >= count_.load(std::memory_order_relaxed)) return;
    // Succeeds only if the loop is still the one whose fields were read.
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel)) continue;
    if (!failed_.load(std::memory_order_relaxed) && !stop->load(std::memory_order_relaxed)) {
      try {
        call(context, static_cast<int64_t>(index), worker);
      } catch (...) {
        std::lock_guard lock(failure_mutex_);
        if (!failed_.exchange(true)) failure_ = std::current_exception();
      }
    }
    done_.fetch_add(1, std::memory_order_acq_rel);
  }
}

bool Pool::spinForWork(uint32_t seen) const {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; i++) {
      if (epoch_.load(std::memory_order_acquire) != seen) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

void Pool::helper(int worker) {
  uint32_t seen = 0;
  for (;;) {
    if (!spinForWork(seen)) epoch_.wait(seen, std::memory_order_acquire);
    seen = epoch_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    work(worker);
  }
}

}  // namespace fireq
