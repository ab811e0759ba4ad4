#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "../cuda/runtime/stream.h"

namespace fireq::cuda {

/// A promise for the moment that a stream's work so far is done, waited for on another thread. `whenDone` then runs on
/// the JavaScript thread, also if the wait failed, and may throw.
Napi::Promise waitForStream(Napi::Env env, std::shared_ptr<Stream> stream,
                            std::function<void(bool reached)> whenDone = {});

}  // namespace fireq::cuda
