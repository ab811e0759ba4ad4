#pragma once

#include <cstddef>
#include <cstdint>

namespace fireq {

/// Types of a program's buffers, as packages/kernels/src/program/program.ts names them.
enum class DType : uint8_t { F32, BF16, E4M3, I32 };

constexpr size_t sizeOf(DType dtype) { return dtype == DType::E4M3 ? 1 : dtype == DType::BF16 ? 2 : 4; }
constexpr const char* nameOf(DType dtype) {
  switch (dtype) {
    case DType::F32: return "f32";
    case DType::BF16: return "bf16";
    case DType::E4M3: return "e4m3";
    case DType::I32: return "i32";
  }
  return "?";
}

/// A buffer during a run. A vector of n has n rows and one column.
struct View {
  DType dtype = DType::F32;
  void* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;

  int64_t count() const { return rows * columns; }
  float* f32() const { return static_cast<float*>(data); }
  int32_t* i32() const { return static_cast<int32_t*>(data); }
  uint16_t* bf16() const { return static_cast<uint16_t*>(data); }
  uint8_t* e4m3() const { return static_cast<uint8_t*>(data); }
};

}  // namespace fireq
