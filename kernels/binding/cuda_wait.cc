#include "cuda_wait.h"

namespace fireq::cuda {

namespace {

class Wait : public Napi::AsyncWorker {
 public:
  Wait(Napi::Env env, std::shared_ptr<Stream> stream, CUevent event, Napi::ObjectReference kept,
       std::function<void(bool)> whenDone)
      : Napi::AsyncWorker(env, "fireq.cuda.wait"),
        deferred_(Napi::Promise::Deferred::New(env)),
        stream_(std::move(stream)),
        event_(event),
        what_(stream_->waitingText()),
        kept_(std::move(kept)),
        whenDone_(std::move(whenDone)) {}

  ~Wait() override { stream_->device().driver().cuEventDestroy.address(event_); }

  Napi::Promise promise() const { return deferred_.Promise(); }

  void Execute() override {
    try {
      waitForEvent(stream_->device(), event_, what_);
    } catch (const std::exception& error) {
      SetError(error.what());
    }
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    try {
      if (whenDone_) whenDone_(true);
      deferred_.Resolve(Env().Undefined());
    } catch (const std::exception& error) {
      deferred_.Reject(Napi::Error::New(Env(), error.what()).Value());
    }
  }

  void OnError(const Napi::Error& error) override {
    const Napi::HandleScope scope(Env());
    if (whenDone_) whenDone_(false);
    deferred_.Reject(error.Value());
  }

 private:
  const Napi::Promise::Deferred deferred_;
  const std::shared_ptr<Stream> stream_;
  const CUevent event_;
  const std::string what_;
  const Napi::ObjectReference kept_;
  const std::function<void(bool)> whenDone_;
};

}  // namespace

Napi::Promise waitForStream(Napi::Env env, std::shared_ptr<Stream> stream, Napi::ObjectReference kept,
                            std::function<void(bool)> whenDone) {
  const CUevent event = stream->end();
  auto* wait = new Wait(env, std::move(stream), event, std::move(kept), std::move(whenDone));  // deletes itself
  wait->Queue();
  return wait->promise();
}

}  // namespace fireq::cuda
