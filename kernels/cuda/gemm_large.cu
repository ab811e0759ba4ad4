// The instantiations of gemm_large.cuh.
#include "gemm_large.cuh"

using namespace fireq;

#define FIREQ_GEMM_LARGE(NAME, CLUSTER, ROW_BLOCKS, PARTS, DEPTH, TOKENS, STAGES, SECTION, CODES, SCALE)               \
  using NAME##_config = GemmLargeConfig<ROW_BLOCKS, PARTS, DEPTH, TOKENS, CLUSTER, STAGES, SECTION, CODES, SCALE>;     \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmLargeInfo<NAME##_config>;                                  \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(384, 1)                                 \
      NAME(const __grid_constant__ GemmLargeParams p) {                                                                \
    gemmLarge<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_LARGE(v8_t256, 2, 1, 2, 1, 256, 5, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t128, 2, 1, 1, 2, 128, 8, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t128f, 2, 1, 1, 2, 128, 8, 8, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t112, 2, 1, 1, 2, 112, 8, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t96, 2, 1, 1, 2, 96, 9, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t80, 2, 1, 1, 2, 80, 9, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t64, 2, 1, 1, 2, 64, 10, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v8_t64c1, 1, 1, 1, 2, 64, 10, 8, Codes::kSymmetric, ScaleType::kBf16)
