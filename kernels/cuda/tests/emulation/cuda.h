// The driver's tensor map, as far as launchers fill it.
#pragma once
#include <cstdint>

/// A row-major array of three dimensions, or two, of which the copy engine moves boxes, rows of a box `swizzle` bytes wide; bytes: of an
/// element.
struct CUtensorMap {
  void* matrix;
  int bytes;
  int64_t width, height;
  int boxWidth, boxHeight, swizzle;
  int64_t depth = 1;
  int boxDepth = 1;
};
