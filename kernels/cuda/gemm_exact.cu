// The instantiations of gemm_exact.cuh: i4_exact_<g32|g64|g128|lookup>_f<features>_t<tokens>_<codes>_<scale>.
#include "gemm_exact.cuh"

using namespace fireq;

#define FIREQ_GEMM_EXACT(NAME, GROUP, PRODUCTS, WARPGROUPS, TOKENS, STAGES, CODES, SCALE)                       \
  using NAME##_config = GemmExactConfig<GROUP, PRODUCTS, WARPGROUPS, TOKENS, STAGES, CODES, SCALE>;             \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmExactInfo<NAME##_config>;                           \
  extern "C" __global__ void __launch_bounds__(WARPGROUPS * 128 + 128, 1)                                       \
      NAME(const __grid_constant__ GemmExactParams p) {                                                         \
    gemmExact<NAME##_config>(p);                                                                                \
  }

#define FIREQ_GEMM_EXACT_KINDS(NAME, ...)                                                                       \
  FIREQ_GEMM_EXACT(NAME##_sym_bf16, __VA_ARGS__, Codes::kSymmetric, ScaleType::kBf16)                           \
  FIREQ_GEMM_EXACT(NAME##_sym_fp32, __VA_ARGS__, Codes::kSymmetric, ScaleType::kFp32)                           \
  FIREQ_GEMM_EXACT(NAME##_full_bf16, __VA_ARGS__, Codes::kFull, ScaleType::kBf16)                               \
  FIREQ_GEMM_EXACT(NAME##_full_fp32, __VA_ARGS__, Codes::kFull, ScaleType::kFp32)

//                     name                    group, products, warpgroups, tokens, stages
FIREQ_GEMM_EXACT_KINDS(i4_exact_g32_f128_t64, 32, Products::kExact, 2, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_g32_f256_t64, 32, Products::kExact, 4, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_g64_f128_t64, 64, Products::kExact, 2, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_g64_f256_t64, 64, Products::kExact, 4, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_g128_f128_t64, 128, Products::kExact, 2, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_g128_f256_t64, 128, Products::kExact, 4, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_lookup_f128_t64, 128, Products::kLookup, 2, 64, 6)
FIREQ_GEMM_EXACT_KINDS(i4_exact_lookup_f128_t128, 128, Products::kLookup, 2, 128, 5)
