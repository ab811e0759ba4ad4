#pragma once

#include <napi.h>

#include <functional>
#include <list>
#include <memory>
#include <set>
#include <string>

#include "../cpu/core/program.h"

namespace fireq {

class CpuBackend;

/// What the addon keeps for one JavaScript environment (the main thread or a worker).
struct Environment {
  std::set<CpuBackend*> backends;
};

/**
 * Threads and the way back to JavaScript. All members are for the JavaScript thread, except that a job's work runs on the
 * pool. A backend lives while its handle or a job does.
 */
class CpuBackend : public std::enable_shared_from_this<CpuBackend> {
 public:
  CpuBackend(Napi::Env env, int threads, Isa isa, bool poison);
  ~CpuBackend();

  Isa isa() const { return isa_; }
  int threads() const { return threads_; }
  bool poison() const { return poison_; }

  using Stop = std::shared_ptr<std::atomic<bool>>;
  /// Runs `work` on the pool and settles a promise: resolved, or rejected with an Error (code FIREQ_ABORTED if the work
  /// threw Aborted). `kept` and whatever `work` captured live until then, and are given up on the JavaScript thread.
  Napi::Promise submit(Napi::Env env, Stop stop, std::vector<Napi::ObjectReference> kept,
                       std::function<void(Pool&, const std::atomic<bool>&)> work);

  /// Stops what is running, rejects what is queued; the threads end once nothing is left. Doesn't wait.
  void close();
  /// Stops and waits: the environment is going away.
  void shutDown();

 private:
  struct Job {
    Napi::Promise::Deferred deferred;
    Stop stop;
    std::vector<Napi::ObjectReference> kept;
    std::function<void(Pool&, const std::atomic<bool>&)> work;
    std::shared_ptr<CpuBackend> self;
    std::string error;
    bool aborted = false;
  };

  void runJob(Job& job);
  static void settle(Napi::Env env, Job* job);

  Environment& environment_;
  const int threads_;
  const Isa isa_;
  const bool poison_;
  bool closed_ = false;
  std::list<Job> jobs_;
  Napi::ThreadSafeFunction toJavaScript_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace fireq
