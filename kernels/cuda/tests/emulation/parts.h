// What a test gives a program, and what it gets back, by files.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "fibers.h"

namespace emulation {

/// Some bytes, 128-byte aligned; they stay until the program ends.
struct Part {
  uint8_t* data;
  int64_t bytes;

  template <class T>
  T* as() const { return reinterpret_cast<T*>(data); }
};

class Input {
 public:
  explicit Input(const char* name) : file_(std::fopen(name, "rb")) {
    if (file_ == nullptr) fail("no input");
  }
  ~Input() { std::fclose(file_); }
  Input(const Input&) = delete;

  template <class T>
  T take() {
    T value;
    read(&value, sizeof value);
    return value;
  }
  /// What is behind its bytes as i64.
  Part part() {
    const auto bytes = take<int64_t>();
    auto* const data = static_cast<uint8_t*>(std::aligned_alloc(128, (bytes + 255) / 128 * 128));
    read(data, bytes);
    return {data, bytes};
  }

 private:
  FILE* file_;
  void read(void* to, size_t bytes) {
    if (bytes > 0 && std::fread(to, bytes, 1, file_) != 1) fail("the input is too short");
  }
};

inline void write(const char* name, const std::vector<uint16_t>& values) {
  FILE* const file = std::fopen(name, "wb");
  if (file == nullptr || std::fwrite(values.data(), 2, values.size(), file) != values.size() || std::fclose(file) != 0) fail("no output");
}

}  // namespace emulation
