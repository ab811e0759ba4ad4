// The instantiations of gemm_large.cuh: i4_large_f<features>_t<tokens>_<codes>_<scale>.
#include "gemm_large.cuh"

using namespace fireq;

#define FIREQ_GEMM_LARGE(NAME, PARTS, DEPTH, TOKENS, STAGES, CODES, SCALE)                                             \
  using NAME##_config = GemmLargeConfig<PARTS, DEPTH, TOKENS, 2, STAGES, 8, CODES, SCALE>;                             \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmLargeInfo<NAME##_config>;                                  \
  extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)                                       \
      NAME(const __grid_constant__ GemmLargeParams p) {                                                                \
    gemmLarge<NAME##_config>(p);                                                                                       \
  }

#define FIREQ_GEMM_LARGE_KINDS(NAME, ...)                                                                              \
  FIREQ_GEMM_LARGE(NAME##_sym_bf16, __VA_ARGS__, Codes::kSymmetric, ScaleType::kBf16)                                  \
  FIREQ_GEMM_LARGE(NAME##_sym_fp32, __VA_ARGS__, Codes::kSymmetric, ScaleType::kFp32)                                  \
  FIREQ_GEMM_LARGE(NAME##_full_bf16, __VA_ARGS__, Codes::kFull, ScaleType::kBf16)                                      \
  FIREQ_GEMM_LARGE(NAME##_full_fp32, __VA_ARGS__, Codes::kFull, ScaleType::kFp32)

//                     name                token parts, accumulator depth, tokens, stages
FIREQ_GEMM_LARGE_KINDS(i4_large_f128_t256, 2, 1, 256, 5)
FIREQ_GEMM_LARGE_KINDS(i4_large_f128_t128, 1, 2, 128, 8)
