// The instantiations of gemm_small.cuh.
#include "gemm_small.cuh"

using namespace fireq;

#define FIREQ_GEMM_SMALL(NAME, PER_SM, WARPGROUPS, TOKENS, BATCH, ROWS, FAST, STAGES, CODES, SCALE)                                \
  using NAME##_config = GemmSmallConfig<WARPGROUPS, TOKENS, BATCH, ROWS, FAST, STAGES, CODES, SCALE>;                              \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmSmallInfo<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128, PER_SM)                                               \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmSmall<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_SMALL(s4_w2t8b2, 2, 2, 8, 2, 1, false, 5, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t64, 2, 2, 64, 1, 1, false, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t64r2, 2, 2, 64, 1, 2, false, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t64r2fast, 2, 2, 64, 1, 2, true, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t64r4, 2, 2, 64, 1, 4, false, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t128, 2, 2, 128, 1, 1, true, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t128r2, 2, 2, 128, 1, 2, true, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w2t128r4, 2, 2, 128, 1, 4, true, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w4t128, 1, 4, 128, 1, 1, true, 6, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s4_w4t128r2, 1, 4, 128, 1, 2, true, 6, Codes::kSymmetric, ScaleType::kBf16)
