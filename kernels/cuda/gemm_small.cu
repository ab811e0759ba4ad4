// The instantiations of gemm_small.cuh.
#include "gemm_small.cuh"

using namespace fireq;

#define FIREQ_GEMM_SMALL(NAME, PER_SM, WARPGROUPS, TOKENS, STAGES, CODES, SCALE)                                       \
  using NAME##_config = GemmSmallConfig<WARPGROUPS, TOKENS, STAGES, CODES, SCALE>;                                     \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmSmallInfo<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128, PER_SM)                                               \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmSmall<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_SMALL(s2_w2t8, 2, 2, 8, 10, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t8_full, 2, 2, 8, 10, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t16, 2, 2, 16, 9, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t16_full, 2, 2, 16, 9, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t16_3, 3, 2, 16, 6, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w4t16, 1, 4, 16, 9, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t32, 2, 2, 32, 7, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w4t32, 1, 4, 32, 8, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t64, 2, 2, 64, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w4t64, 1, 4, 64, 6, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s2_w2t128, 1, 2, 128, 6, Codes::kSymmetric, ScaleType::kBf16)
