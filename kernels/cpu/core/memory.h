#pragma once

#include <cstddef>
#include <utility>

namespace fireq {

/// Zeroed memory, aligned to a cache line at least, that becomes resident only where it is touched.
class Memory {
 public:
  Memory() = default;
  /// Throws Error, naming the size, if there isn't that much.
  explicit Memory(size_t bytes);
  ~Memory() { release(); }
  Memory(Memory&& other) noexcept : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  /// Makes it at least this large; what it held is lost.
  void atLeast(size_t bytes);

 private:
  void release() noexcept;

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

constexpr size_t kCacheLine = 64;
constexpr size_t alignUp(size_t value, size_t to = kCacheLine) { return (value + to - 1) / to * to; }

}  // namespace fireq
