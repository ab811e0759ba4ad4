// The instantiations of gemm_dense.cuh: <e4m3|bf16>_dense_f128_t<tokens>, and e4m3_precise_f128_t<tokens>, which promotes.
#include "gemm_dense.cuh"

using namespace fireq;

#define FIREQ_GEMM_DENSE(NAME, TYPE, SUMS, TOKENS, STAGES, PER_SM)                            \
  using NAME##_config = GemmDenseConfig<TYPE, SUMS, TOKENS, STAGES, PER_SM>;                  \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmDenseInfo<NAME##_config>;         \
  extern "C" __global__ void __launch_bounds__(384, PER_SM) NAME(const __grid_constant__ GemmDenseParams p) { \
    gemmDense<NAME##_config>(p);                                                              \
  }

//               name                   operands, sums, tokens, stages, blocks an SM
FIREQ_GEMM_DENSE(e4m3_dense_f128_t16, DenseType::kE4m3, Sums::kFast, 16, 6, 2)
FIREQ_GEMM_DENSE(e4m3_dense_f128_t64, DenseType::kE4m3, Sums::kFast, 64, 4, 2)
FIREQ_GEMM_DENSE(e4m3_dense_f128_t256, DenseType::kE4m3, Sums::kFast, 256, 4, 1)
FIREQ_GEMM_DENSE(e4m3_precise_f128_t16, DenseType::kE4m3, Sums::kPromoted, 16, 6, 2)
FIREQ_GEMM_DENSE(e4m3_precise_f128_t128, DenseType::kE4m3, Sums::kPromoted, 128, 6, 1)
FIREQ_GEMM_DENSE(bf16_dense_f128_t16, DenseType::kBf16, Sums::kFast, 16, 6, 2)
FIREQ_GEMM_DENSE(bf16_dense_f128_t64, DenseType::kBf16, Sums::kFast, 64, 4, 2)
FIREQ_GEMM_DENSE(bf16_dense_f128_t256, DenseType::kBf16, Sums::kFast, 256, 4, 1)
