// The instantiations of gemm_small.cuh: i4_small_f<features>_t<tokens>[_silu]_<codes>_<scale>.
#include "gemm_small.cuh"

using namespace fireq;

#define FIREQ_GEMM_SMALL(NAME, PER_SM, WARPGROUPS, TOKENS, BATCH, STAGES, EPILOGUE, CODES, SCALE)                          \
  using NAME##_config = GemmSmallConfig<PER_SM, WARPGROUPS, TOKENS, BATCH, STAGES, EPILOGUE, CODES, SCALE>;             \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmSmallInfo<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128 + 128, PER_SM)                                         \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmSmall<NAME##_config>(p);                                                                                       \
  }

#define FIREQ_GEMM_SMALL_KINDS(NAME, ...)                                                                              \
  FIREQ_GEMM_SMALL(NAME##_sym_bf16, __VA_ARGS__, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kBf16)               \
  FIREQ_GEMM_SMALL(NAME##_sym_fp32, __VA_ARGS__, Epilogue::kLinear, Codes::kSymmetric, ScaleType::kFp32)               \
  FIREQ_GEMM_SMALL(NAME##_full_bf16, __VA_ARGS__, Epilogue::kLinear, Codes::kFull, ScaleType::kBf16)                   \
  FIREQ_GEMM_SMALL(NAME##_full_fp32, __VA_ARGS__, Epilogue::kLinear, Codes::kFull, ScaleType::kFp32)                   \
  FIREQ_GEMM_SMALL(NAME##_silu_sym_bf16, __VA_ARGS__, Epilogue::kSiluMul, Codes::kSymmetric, ScaleType::kBf16)         \
  FIREQ_GEMM_SMALL(NAME##_silu_sym_fp32, __VA_ARGS__, Epilogue::kSiluMul, Codes::kSymmetric, ScaleType::kFp32)         \
  FIREQ_GEMM_SMALL(NAME##_silu_full_bf16, __VA_ARGS__, Epilogue::kSiluMul, Codes::kFull, ScaleType::kBf16)             \
  FIREQ_GEMM_SMALL(NAME##_silu_full_fp32, __VA_ARGS__, Epilogue::kSiluMul, Codes::kFull, ScaleType::kFp32)

//                     name                blocks an SM, warpgroups, tokens, groups a stage, stages
FIREQ_GEMM_SMALL_KINDS(i4_small_f128_t8, 2, 2, 8, 2, 5)
FIREQ_GEMM_SMALL_KINDS(i4_small_f128_t16, 2, 2, 16, 2, 4)
FIREQ_GEMM_SMALL_KINDS(i4_small_f128_t32, 2, 2, 32, 2, 3)
// A block an SM, for weights of which that is all of them in one round.
FIREQ_GEMM_SMALL_KINDS(i4_small_f192_t16, 1, 3, 16, 2, 6)
FIREQ_GEMM_SMALL_KINDS(i4_small_f192_t32, 1, 3, 32, 2, 5)
FIREQ_GEMM_SMALL_KINDS(i4_small_f256_t64, 1, 4, 64, 1, 6)
