#pragma once

#include <string>
#include <vector>

#include "driver.h"

namespace fireq::cuda {

/// A row-major tensor in device memory as the copy engine fetches and stores boxes of it. Innermost dimension first.
struct TensorMapSpec {
  int type = CU_TENSOR_MAP_DATA_TYPE_UINT8;
  CUdeviceptr address = 0;
  std::vector<uint64_t> sizes;    // elements
  std::vector<uint64_t> strides;  // bytes, of every dimension but the innermost
  std::vector<uint32_t> box;      // elements
  int swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
};

/// Throws Error with the tensor's sizes and box if the copy engine can't take them.
CUtensorMap encodeTensorMap(const Driver& driver, const TensorMapSpec& spec, const std::string& what);

}  // namespace fireq::cuda
