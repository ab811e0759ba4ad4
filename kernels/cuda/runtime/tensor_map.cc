#include "tensor_map.h"

namespace fireq::cuda {

namespace {

template <class T>
std::string list(const std::vector<T>& values) {
  std::string text;
  for (const T value : values) text += (text.empty() ? "" : " × ") + std::to_string(value);
  return text;
}

}  // namespace

CUtensorMap encodeTensorMap(const Driver& driver, const TensorMapSpec& spec, const std::string& what) {
  const size_t rank = spec.sizes.size();
  if (rank < 1 || rank > 5 || spec.strides.size() != rank - 1 || spec.box.size() != rank) {
    throw Error(what + ": expected sizes, strides and a box of one tensor of 1 to 5 dimensions");
  }
  const std::vector<uint32_t> every(rank, 1);
  CUtensorMap map;
  const CUresult result = driver.cuTensorMapEncodeTiled.address(
      &map, spec.type, static_cast<uint32_t>(rank), reinterpret_cast<void*>(spec.address), spec.sizes.data(),
      spec.strides.data(), spec.box.data(), every.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, spec.swizzle,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw driver.failure(what + ": describing a tensor of " + list(spec.sizes) + " in boxes of " + list(spec.box),
                         driver.cuTensorMapEncodeTiled.symbol, result);
  }
  return map;
}

}  // namespace fireq::cuda
