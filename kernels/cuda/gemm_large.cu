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

FIREQ_GEMM_LARGE(v7_f128t256, 2, 1, 2, 256, 5, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t256f, 2, 1, 2, 256, 5, 0, 8, 0, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t224, 2, 1, 2, 224, 5, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t192, 2, 1, 2, 192, 6, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t160, 2, 1, 2, 160, 7, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t128, 2, 1, 2, 128, 8, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f128t64, 2, 1, 1, 64, 10, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f256t64, 2, 2, 1, 64, 8, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f256t96, 2, 2, 1, 96, 6, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v7_f256t128, 2, 2, 1, 128, 6, 0, 8, 0, Codes::kSymmetric, ScaleType::kBf16)
