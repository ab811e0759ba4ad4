// The instantiations of gemm_large.cuh.
#include "gemm_large.cuh"

using namespace fireq;

#define FIREQ_GEMM_LARGE(NAME, CLUSTER, ROW_BLOCKS, TOKENS, STAGES, LAG, CODES, SCALE)                                 \
  using NAME##_config = GemmLargeConfig<ROW_BLOCKS, TOKENS, CLUSTER, STAGES, LAG, CODES, SCALE>;                       \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmLargeInfo<NAME##_config>;                                  \
  extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(384, 1)                                 \
      NAME(const __grid_constant__ GemmLargeParams p) {                                                                \
    gemmLarge<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_LARGE(v1_c2_lag, 2, 2, 128, 6, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_nolag, 2, 2, 128, 6, 0, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c1_lag, 1, 2, 128, 6, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_lag_full, 2, 2, 128, 6, 4, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_t96, 2, 2, 96, 7, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_t64, 2, 2, 64, 8, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_f128t128, 2, 1, 128, 8, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_LARGE(v1_c2_f128t64, 2, 1, 64, 10, 4, Codes::kSymmetric, ScaleType::kBf16)
