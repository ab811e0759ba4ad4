// The instantiations of gemm_medium.cuh: i4_small_f<features>_t<tokens>[_silu]_<codes>_<scale>, launched as gemm_small's.
#include "gemm_medium.cuh"

using namespace fireq;

#define FIREQ_GEMM_MEDIUM(NAME, PER_SM, WARPGROUPS, TOKENS, STAGES, EPILOGUE, CODES, SCALE)                            \
  using NAME##_config = GemmMediumConfig<PER_SM, WARPGROUPS, TOKENS, STAGES, EPILOGUE, CODES, SCALE>;                  \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmMediumInfo<NAME##_config>;                                 \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128 + 128, PER_SM)                                         \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmMedium<NAME##_config>(p);                                                                                      \
  }

#define FIREQ_GEMM_MEDIUM_KINDS(NAME, ...)                                                                             \
  FIREQ_GEMM_MEDIUM(NAME##_sym_bf16, __VA_ARGS__, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kBf16)              \
  FIREQ_GEMM_MEDIUM(NAME##_sym_fp32, __VA_ARGS__, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kFp32)              \
  FIREQ_GEMM_MEDIUM(NAME##_full_bf16, __VA_ARGS__, Epilogue::kLinear, Codes::kFull, ScaleType::kBf16)                  \
  FIREQ_GEMM_MEDIUM(NAME##_full_fp32, __VA_ARGS__, Epilogue::kLinear, Codes::kFull, ScaleType::kFp32)                  \
  FIREQ_GEMM_MEDIUM(NAME##_silu_sym_bf16, __VA_ARGS__, Epilogue::kSiluMul, Codes::kSymmetric, ScaleType::kBf16)        \
  FIREQ_GEMM_MEDIUM(NAME##_silu_sym_fp32, __VA_ARGS__, Epilogue::kSiluMul, Codes::kSymmetric, ScaleType::kFp32)        \
  FIREQ_GEMM_MEDIUM(NAME##_silu_full_bf16, __VA_ARGS__, Epilogue::kSiluMul, Codes::kFull, ScaleType::kBf16)            \
  FIREQ_GEMM_MEDIUM(NAME##_silu_full_fp32, __VA_ARGS__, Epilogue::kSiluMul, Codes::kFull, ScaleType::kFp32)

//                      name               blocks an SM, warpgroups, tokens, stages
FIREQ_GEMM_MEDIUM_KINDS(i4_small_f128_t64, 2, 2, 64, 6)
FIREQ_GEMM_MEDIUM_KINDS(i4_small_f192_t64, 1, 3, 64, 8)
FIREQ_GEMM_MEDIUM_KINDS(i4_small_f128_t128, 1, 2, 128, 8)
FIREQ_GEMM_MEDIUM_KINDS(i4_small_f192_t128, 1, 3, 128, 7)
FIREQ_GEMM_MEDIUM_KINDS(i4_small_f256_t128, 1, 4, 128, 6)
