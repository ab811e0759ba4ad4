// The driver's tensor map, as far as gemm_large's launcher fills it.
#pragma once
#include <cstdint>

/// A row-major matrix of which the copy engine moves boxes, rows of a box `swizzle` bytes wide; bytes: of an element.
struct CUtensorMap {
  void* matrix;
  int bytes;
  int64_t width, height;
  int boxWidth, boxHeight, swizzle;
};
