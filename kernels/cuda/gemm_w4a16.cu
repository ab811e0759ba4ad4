// The instantiations of gemm_w4a16.cuh and gemm_w4a16_large.cuh:
// w4a16_<small|large>_f<features>_t<tokens>[_silu]_<type of group scales>.
#include "gemm_w4a16.cuh"
#include "gemm_w4a16_large.cuh"

using namespace fireq;

#define FIREQ_W4A16(NAME, PER_SM, WARPGROUPS, TOKENS, BATCH, STAGES, SUM, EPILOGUE, SCALE)                             \
  using NAME##_config = GemmW4a16Config<PER_SM, WARPGROUPS, TOKENS, BATCH, STAGES, SUM, EPILOGUE, SCALE>;              \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmW4a16Info<NAME##_config>;                                  \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128 + 128, PER_SM)                                         \
      NAME(const __grid_constant__ GemmSmallParams p) {                                                                \
    gemmW4a16<NAME##_config>(p);                                                                                       \
  }

#define FIREQ_W4A16_LARGE(NAME, TOKENS, STAGES, EPILOGUE, SCALE)                                                       \
  using NAME##_config = GemmW4a16LargeConfig<TOKENS, STAGES, EPILOGUE, SCALE>;                                         \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmW4a16LargeInfo<NAME##_config>;                             \
  extern "C" __global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(384, 1)                                       \
      NAME(const __grid_constant__ GemmW4a16LargeParams p) {                                                           \
    gemmW4a16Large<NAME##_config>(p);                                                                                  \
  }

#define FIREQ_W4A16_KINDS(DEFINE, NAME, ...)                                                                           \
  DEFINE(NAME##_bf16, __VA_ARGS__, Epilogue::kLinear, ScaleType::kBf16)                                                \
  DEFINE(NAME##_fp32, __VA_ARGS__, Epilogue::kLinear, ScaleType::kFp32)                                                \
  DEFINE(NAME##_silu_bf16, __VA_ARGS__, Epilogue::kSiluMul, ScaleType::kBf16)                                          \
  DEFINE(NAME##_silu_fp32, __VA_ARGS__, Epilogue::kSiluMul, ScaleType::kFp32)

//                name                     blocks an SM, warpgroups, tokens, groups a stage, stages
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f128_t8, 2, 2, 8, 2, 4, SumKind::kByWarps)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f128_t16, 2, 2, 16, 2, 4, SumKind::kPromoted)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f128_t32, 2, 2, 32, 2, 3, SumKind::kPromoted)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f192_t32, 1, 3, 32, 2, 4, SumKind::kPromoted)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f128_t64, 2, 2, 64, 1, 4, SumKind::kRescaled)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f192_t64, 1, 3, 64, 1, 7, SumKind::kRescaled)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f128_t128, 1, 2, 128, 1, 5, SumKind::kRescaled)
FIREQ_W4A16_KINDS(FIREQ_W4A16, w4a16_small_f192_t128, 1, 3, 128, 1, 5, SumKind::kRescaled)
//                                                    tokens, stages
FIREQ_W4A16_KINDS(FIREQ_W4A16_LARGE, w4a16_large_f128_t256, 256, 3)
