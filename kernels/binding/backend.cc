#include "backend.h"

namespace fireq {

CpuBackend::CpuBackend(Napi::Env env, int threads, Isa isa, bool poison)
    : environment_(*env.GetInstanceData<Environment>()), threads_(threads), isa_(isa), poison_(poison) {
  if (!isUsable(isa)) throw Error(std::string("instruction set ") + nameOf(isa) + ": " + whyNot(isa));
  const auto nothing = Napi::Function::New(env, [](const Napi::CallbackInfo&) {});
  toJavaScript_ = Napi::ThreadSafeFunction::New(env, nothing, "fireq", 0, 1);
  toJavaScript_.Unref(env);  // an idle backend must not keep the process alive
  pool_ = std::make_unique<Pool>(threads);
  environment_.backends.insert(this);
}

CpuBackend::~CpuBackend() {
  shutDown();
  environment_.backends.erase(this);
  toJavaScript_.Release();
}

Napi::Promise CpuBackend::submit(Napi::Env env, Stop stop, std::vector<Napi::ObjectReference> kept,
                                 std::function<void(Pool&, const std::atomic<bool>&)> work) {
  if (closed_ || pool_ == nullptr) throw Error("the backend was disposed");
  if (jobs_.empty()) toJavaScript_.Ref(env);
  Job& job = jobs_.emplace_back(Job{Napi::Promise::Deferred::New(env), std::move(stop), std::move(kept),
                                    std::move(work), shared_from_this(), {}, false});
  pool_->submit([this, &job] {
    runJob(job);
    toJavaScript_.NonBlockingCall(&job, [](Napi::Env environment, Napi::Function, Job* done) { settle(environment, done); });
  });
  return job.deferred.Promise();
}

void CpuBackend::runJob(Job& job) {
  try {
    if (job.stop->load()) throw Aborted();
    job.work(*pool_, *job.stop);
  } catch (const Aborted&) {
    job.aborted = true;
    job.error = "the run was aborted";
  } catch (const std::exception& error) {
    job.error = error.what();
  } catch (...) {
    job.error = "an unknown failure";
  }
}

void CpuBackend::settle(Napi::Env env, Job* job) {
  const std::shared_ptr<CpuBackend> backend = job->self;
  Napi::HandleScope scope(env);
  if (job->error.empty()) {
    job->deferred.Resolve(env.Undefined());
  } else {
    Napi::Error error = Napi::Error::New(env, job->error);
    if (job->aborted) error.Set("code", Napi::String::New(env, "FIREQ_ABORTED"));
    job->deferred.Reject(error.Value());
  }
  backend->jobs_.remove_if([job](const Job& other) { return &other == job; });
  if (!backend->jobs_.empty()) return;
  backend->toJavaScript_.Unref(env);
  if (backend->closed_) backend->pool_.reset();  // idle, so its threads end at once
}

void CpuBackend::close() {
  closed_ = true;
  for (Job& job : jobs_) job.stop->store(true);
  if (jobs_.empty()) pool_.reset();
}

void CpuBackend::shutDown() {
  closed_ = true;
  for (Job& job : jobs_) job.stop->store(true);
  pool_.reset();
}

}  // namespace fireq
