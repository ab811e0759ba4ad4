#include "cuda_wait.h"

#include <string>

namespace fireq::cuda {

namespace {

// Plain Node-API: when an environment is torn down nothing can be settled any more, and node-addon-api's exceptions about
// that would end the process.
struct Wait {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::shared_ptr<Stream> stream;
  CUevent event = nullptr;
  std::string what;
  std::function<void(bool)> whenDone;
  std::string error;

  ~Wait() {
    if (event != nullptr) stream->device().driver().cuEventDestroy.address(event);
  }
};

void waitOnThread(napi_env, void* data) {
  auto* wait = static_cast<Wait*>(data);
  try {
    waitForEvent(wait->stream->device(), wait->event, wait->what);
  } catch (const std::exception& error) {
    wait->error = error.what();
  }
}

void settle(napi_env env, napi_status status, void* data) {
  const std::unique_ptr<Wait> wait(static_cast<Wait*>(data));
  try {
    const bool reached = status == napi_ok && wait->error.empty();
    if (wait->whenDone) wait->whenDone(reached);
  } catch (const std::exception& error) {
    wait->error = error.what();
  }
  napi_value result = nullptr;
  if (wait->error.empty()) {
    napi_get_undefined(env, &result);
    napi_resolve_deferred(env, wait->deferred, result);
  } else {
    napi_value message = nullptr;
    napi_create_string_utf8(env, wait->error.c_str(), wait->error.size(), &message);
    napi_create_error(env, nullptr, message, &result);
    napi_reject_deferred(env, wait->deferred, result);
  }
  napi_delete_async_work(env, wait->work);
}

}  // namespace

Napi::Promise waitForStream(Napi::Env env, std::shared_ptr<Stream> stream, std::function<void(bool)> whenDone) {
  auto wait = std::make_unique<Wait>();
  wait->what = stream->waitingText();
  wait->event = stream->end();
  wait->stream = std::move(stream);
  wait->whenDone = std::move(whenDone);
  napi_value promise = nullptr, name = nullptr;
  if (napi_create_string_utf8(env, "fireq.cuda.wait", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_promise(env, &wait->deferred, &promise) != napi_ok ||
      napi_create_async_work(env, nullptr, name, waitOnThread, settle, wait.get(), &wait->work) != napi_ok ||
      napi_queue_async_work(env, wait->work) != napi_ok) {
    throw Error("a wait for the GPU could not be started");
  }
  wait.release();  // settle takes it back
  return {env, promise};
}

}  // namespace fireq::cuda
