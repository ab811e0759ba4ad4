#include "values.h"

#include <cmath>

namespace fireq {

Elements elements(const Napi::Value& value, napi_typedarray_type type, const std::string& what) {
  if (!value.IsTypedArray()) throw Error("expected a typed array for " + what);
  const auto typed = value.As<Napi::TypedArray>();
  if (typed.TypedArrayType() != type) throw Error("expected another element type for " + what);
  napi_value buffer = nullptr;
  void* data = nullptr;
  size_t length = 0, offset = 0;
  napi_typedarray_type same;
  if (napi_get_typedarray_info(value.Env(), value, &same, &length, &data, &buffer, &offset) != napi_ok) {
    throw Error("the typed array for " + what + " can't be read");
  }
  bool isArrayBuffer = false, isDetached = false;
  napi_is_arraybuffer(value.Env(), buffer, &isArrayBuffer);
  if (!isArrayBuffer) throw Error("the memory of " + what + " must not be shared between threads (SharedArrayBuffer)");
  napi_is_detached_arraybuffer(value.Env(), buffer, &isDetached);
  if (isDetached) throw Error("the ArrayBuffer of " + what + " is detached");
  return {data, length, length * typed.ElementSize()};
}

Elements elements(const Napi::Value& value, const std::string& type, const std::string& what) {
  if (type == "f32") return elements(value, napi_float32_array, what);
  if (type == "i32") return elements(value, napi_int32_array, what);
  if (type == "bf16" || type == "f16") return elements(value, napi_uint16_array, what);
  if (type == "e4m3" || type == "u8") return elements(value, napi_uint8_array, what);
  throw Error("unknown type '" + type + "' of " + what);
}

Napi::Object object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) throw Error("expected an object for " + what);
  return value.As<Napi::Object>();
}

Napi::Array array(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) throw Error("expected an array for " + what);
  return value.As<Napi::Array>();
}

std::string string(const Napi::Value& value, const char* what) {
  if (!value.IsString()) throw Error(std::string("expected a string for ") + what);
  return value.As<Napi::String>().Utf8Value();
}

std::string text(const Napi::Object& from, const char* name) {
  const Napi::Value value = from.Get(name);
  if (!value.IsString()) throw Error(std::string("expected a string for ") + name);
  return value.As<Napi::String>().Utf8Value();
}

int64_t whole(const Napi::Value& value, const std::string& what) {
  if (value.IsNumber()) {
    const double number = value.As<Napi::Number>().DoubleValue();
    if (number >= 0 && number < 0x1p53 && number == std::floor(number)) return static_cast<int64_t>(number);
  }
  throw Error("expected a whole number ≥ 0 for " + what);
}

int64_t whole(const Napi::Object& from, const char* name) { return whole(from.Get(name), name); }

bool flag(const Napi::Object& from, const char* name) {
  const Napi::Value value = from.Get(name);
  return value.IsBoolean() && value.As<Napi::Boolean>().Value();
}

}  // namespace fireq
