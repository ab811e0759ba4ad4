#pragma once

// How C++ functions and objects become JavaScript ones.

#include <napi.h>

#include <exception>

namespace fireq {

/// A function that turns C++ exceptions into JavaScript ones.
template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
  try {
    return Function(info);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Napi::Error::New(info.Env(), error.what());
  }
}

template <Napi::Value (*Function)(const Napi::CallbackInfo&)>
void define(Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New<guarded<Function>>(exports.Env(), name));
}

// A type that handles hold: its name for errors, and its tag, which is random and only has to differ from the others.
#define FIREQ_HANDLE(type, name, high, low)                 \
  template <>                                               \
  const napi_type_tag& tagOf<type>() {                      \
    static const napi_type_tag tag{high##ULL, low##ULL};    \
    return tag;                                             \
  }                                                         \
  template <>                                               \
  const char* kindOf<type>() {                              \
    return name;                                            \
  }

}  // namespace fireq
