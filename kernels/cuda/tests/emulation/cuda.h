// The driver's tensor map, as far as launchers fill it.
#pragma once
#include <cstdint>

/// An array of two dimensions, or three, of which the copy engine moves boxes, rows of a box `swizzle` bytes wide.
struct CUtensorMap {
  void* data;
  int elementBytes;
  int64_t width, height, depth;
  int64_t rowElements, planeElements;  // from a row's first element to the next one's, and a plane's
  int boxWidth, boxHeight, boxDepth, swizzle;
};
inline CUtensorMap mapOfMatrix(void* data, int elementBytes, int64_t width, int64_t height, int boxWidth, int boxHeight, int swizzle) {
  return {data, elementBytes, width, height, 1, width, width * height, boxWidth, boxHeight, 1, swizzle};
}
