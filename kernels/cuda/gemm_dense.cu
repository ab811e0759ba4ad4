// The instantiations of gemm_dense.cuh: <e4m3|bf16>_dense_f128_t<tokens>_<bf16|f32>.
#include "gemm_dense.cuh"

using namespace fireq;

#define FIREQ_GEMM_DENSE(NAME, TYPE, OUT, TOKENS, STAGES, PER_SM)                             \
  using NAME##_config = GemmDenseConfig<TYPE, OUT, TOKENS, STAGES, PER_SM>;                   \
  extern "C" __device__ const KernelInfo NAME##_info = kGemmDenseInfo<NAME##_config>;         \
  extern "C" __global__ void __launch_bounds__(384, PER_SM) NAME(const __grid_constant__ GemmDenseParams p) { \
    gemmDense<NAME##_config>(p);                                                              \
  }

#define FIREQ_GEMM_DENSE_TYPES(TILE, ...)                                                     \
  FIREQ_GEMM_DENSE(e4m3_dense_##TILE##_bf16, DenseType::kE4m3, OutType::kBf16, __VA_ARGS__)   \
  FIREQ_GEMM_DENSE(e4m3_dense_##TILE##_f32, DenseType::kE4m3, OutType::kF32, __VA_ARGS__)     \
  FIREQ_GEMM_DENSE(bf16_dense_##TILE##_bf16, DenseType::kBf16, OutType::kBf16, __VA_ARGS__)   \
  FIREQ_GEMM_DENSE(bf16_dense_##TILE##_f32, DenseType::kBf16, OutType::kF32, __VA_ARGS__)

//                     tile      tokens, stages, blocks an SM
FIREQ_GEMM_DENSE_TYPES(f128_t16, 16, 6, 2)
FIREQ_GEMM_DENSE_TYPES(f128_t64, 64, 4, 2)
FIREQ_GEMM_DENSE_TYPES(f128_t256, 256, 4, 1)
