#pragma once

// From JavaScript values to C++ ones: whatever doesn't fit is an Error that names it.

#include <napi.h>

#include <memory>
#include <string>

#include "../cpu/core/error.h"

namespace fireq {

/// The elements of a typed array. Valid until control returns to JavaScript.
struct Elements {
  void* data;
  size_t count;
  size_t bytes;
};

/// Throws unless `value` is a typed array of this type over an ArrayBuffer that is neither shared nor detached.
Elements elements(const Napi::Value& value, napi_typedarray_type type, const std::string& what);
/// The same for a type given by name: f32, i32, bf16 and f16 (Uint16Array), e4m3 and u8 (Uint8Array).
Elements elements(const Napi::Value& value, const std::string& type, const std::string& what);

Napi::Object object(const Napi::Value& value, const std::string& what);
Napi::Array array(const Napi::Value& value, const std::string& what);
std::string string(const Napi::Value& value, const char* what);
std::string text(const Napi::Object& from, const char* name);
/// A whole number in [0, 2⁵³).
int64_t whole(const Napi::Value& value, const std::string& what);
int64_t whole(const Napi::Object& from, const char* name);
bool flag(const Napi::Object& from, const char* name);

// Handles: JavaScript objects that own a share of a C++ object. They are told apart by a tag, so that a wrong or made-up
// object is an error; `release` gives the share up early, and may be called twice.

template <class T>
const napi_type_tag& tagOf();
template <class T>
const char* kindOf();

template <class T>
Napi::Object makeHandle(Napi::Env env, std::shared_ptr<T> held) {
  Napi::Object handle = Napi::Object::New(env);
  auto* share = new std::shared_ptr<T>(std::move(held));
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
  if (napi_wrap(env, handle, share, finalize, nullptr, nullptr) != napi_ok) {
    delete share;
    throw Error("a handle could not be made");
  }
  handle.TypeTag(&tagOf<T>());
  return handle;
}

template <class T>
std::shared_ptr<T>* shareOf(const Napi::Value& value) {
  void* data = nullptr;
  if (value.IsObject() && value.As<Napi::Object>().CheckTypeTag(&tagOf<T>()) &&
      napi_unwrap(value.Env(), value, &data) == napi_ok) {
    return static_cast<std::shared_ptr<T>*>(data);
  }
  return nullptr;
}

template <class T>
std::shared_ptr<T> held(const Napi::Value& value) {
  std::shared_ptr<T>* share = shareOf<T>(value);
  if (share == nullptr) throw Error(std::string("expected a ") + kindOf<T>());
  if (*share == nullptr) throw Error(std::string("the ") + kindOf<T>() + " was disposed");
  return *share;
}

}  // namespace fireq
