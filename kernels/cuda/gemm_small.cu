// The instantiations of gemm_small.cuh.
#include "gemm_small.cuh"

using namespace fireq;

#define FIREQ_GEMM_SMALL(NAME, PER_SM, WARPGROUPS, TOKENS, BATCH, ROWS, FAST, STAGES, CODES, SCALE)                                \
  using NAME##_config = GemmSmallConfig<PER_SM, WARPGROUPS, TOKENS, BATCH, ROWS, FAST, STAGES, CODES, SCALE>;                   \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmSmallInfo<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128 + 128, PER_SM)                                         \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmSmall<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_SMALL(s5_t8b2, 2, 2, 8, 2, 1, false, 5, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t8b2f, 2, 2, 8, 2, 1, false, 5, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t16b2, 2, 2, 16, 2, 1, false, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t16b2f, 2, 2, 16, 2, 1, false, 4, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t32b2, 2, 2, 32, 2, 1, false, 3, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t32b2f, 2, 2, 32, 2, 1, false, 3, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t64, 2, 2, 64, 1, 1, false, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t64f, 2, 2, 64, 1, 1, false, 4, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_t64fast, 2, 2, 64, 1, 1, true, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_w4t128, 1, 4, 128, 1, 1, true, 6, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_w4t128f, 1, 4, 128, 1, 1, true, 6, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_w3t128, 1, 3, 128, 1, 1, true, 6, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s5_w4t64, 1, 4, 64, 1, 1, false, 6, Codes::kSymmetric, ScaleType::kBf16)
