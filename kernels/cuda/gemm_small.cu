// The instantiations of gemm_small.cuh.
#include "gemm_small.cuh"

using namespace fireq;

#define FIREQ_GEMM_SMALL(NAME, PER_SM, WARPGROUPS, TOKENS, BATCH, STAGES, CODES, SCALE)                                \
  using NAME##_config = GemmSmallConfig<WARPGROUPS, TOKENS, BATCH, STAGES, CODES, SCALE>;                              \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmSmallInfo<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128, PER_SM)                                               \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmSmall<NAME##_config>(p);                                                                                       \
  }

FIREQ_GEMM_SMALL(s3_w2t8b4, 2, 2, 8, 4, 2, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t8b2, 2, 2, 8, 2, 5, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t8b2f, 2, 2, 8, 2, 5, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t8b2x3, 3, 2, 8, 2, 3, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t16b4, 2, 2, 16, 4, 2, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t16b2, 2, 2, 16, 2, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t16b2f, 2, 2, 16, 2, 4, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t16b2x3, 3, 2, 16, 2, 3, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t16b1x4, 4, 2, 16, 1, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t32b2, 2, 2, 32, 2, 3, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t32b2f, 2, 2, 32, 2, 3, Codes::kFull, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t32b1x3, 3, 2, 32, 1, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w2t64b1, 2, 2, 64, 1, 4, Codes::kSymmetric, ScaleType::kBf16)
FIREQ_GEMM_SMALL(s3_w4t64b1, 1, 4, 64, 1, 6, Codes::kSymmetric, ScaleType::kBf16)
