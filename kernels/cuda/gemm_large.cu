// The instantiations of gemm_large.cuh.
#include "gemm_large.cuh"

using namespace fireq;

#define FIREQ_GEMM_LARGE(NAME, CLUSTER, ROW_BLOCKS, PARTS, TOKENS, STAGES, LAG, SECTION, OFFSET, CODES, SCALE)                                 \
  using NAME##_config = GemmLargeConfig<ROW_BLOCKS, PARTS, TOKENS, CLUSTER, STAGES, LAG, SECTION, OFFSET, CODES, SCALE>;                       \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmLargeInfo<NAME##_config>;                                  \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(384, 1)                                 \
      NAME(const __grid_constant__ GemmLargeParams p) {                                                                \
    gemmLarge<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_LARGE(v6_s8, 2, 1, 2, 256, 5, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v6_s8o4, 2, 1, 2, 256, 5, 0, 8, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v6_s4o2, 2, 1, 2, 256, 5, 0, 4, 2, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v6_s8_full, 2, 1, 2, 256, 5, 0, 8, 0, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v6_c1_s8, 1, 1, 2, 256, 5, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
