#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fireq {

/// Threads of one backend. Jobs run one after another on the first thread; a job spreads its loops over all of them.
class Pool {
 public:
  explicit Pool(int threads);
  /// Waits for the job that is running; jobs still queued are dropped.
  ~Pool();
  Pool(const Pool&) = delete;

  int threads() const { return threads_; }
  /// Queues a job. It must not throw.
  void submit(std::function<void()> job);

  /// Calls body(index, worker) for every index below `count`, on any thread, and returns when all have returned; rethrows
  /// the first exception. Only inside a job. A true `*stop` skips the indices that haven't begun.
  template <class Body>
  void parallelFor(int64_t count, const std::atomic<bool>* stop, const Body& body) {
    const Loop loop{[](const void* context, int64_t index, int worker) {
                      (*static_cast<const Body*>(context))(index, worker);
                    },
                    &body, count, stop};
    run(loop);
  }

 private:
  struct Loop {
    void (*call)(const void* context, int64_t index, int worker);
    const void* context;
    int64_t count;
    const std::atomic<bool>* stop;
  };

  void run(const Loop& loop);
  void driver();
  void helper(int worker);
  /// Takes and runs indices of the current loop until there are none.
  void work(int worker);
  bool spinForWork(uint32_t seen) const;

  const int threads_;
  // The current loop. Its fields change only while `ticket_` is closed, so whoever takes a ticket has seen them whole.
  std::atomic<void (*)(const void*, int64_t, int)> call_{nullptr};
  std::atomic<const void*> context_{nullptr};
  std::atomic<uint32_t> count_{0};
  std::atomic<const std::atomic<bool>*> stop_{nullptr};
  // High half: the loop's number; low half: the next index, or kClosed.
  alignas(64) std::atomic<uint64_t> ticket_;
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<std::function<void()>> queue_;
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace fireq
