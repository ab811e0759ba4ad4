// The instantiations of quantize.cuh: rows of at most 1, 2 or 4 vectors a thread, and how many blocks of 512 threads of
// the fused kernel a multiprocessor holds (packages/kernels/src/cuda/quantize.ts launches as many).
#include "quantize.cuh"

using namespace fireq;

#define FIREQ_QUANTIZE(VECTORS, RESIDENT)                                                                               \
  extern "C" __global__ void __launch_bounds__(1024, 2)                                                                \
      quantize_tokens_##VECTORS(const uint4* x, uint2* out, float* scale, int columns) {                               \
    quantizeTokens<VECTORS>(x, out, scale, columns);                                                                   \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(512, RESIDENT) rms_norm_quantize_##VECTORS(                             \
      const uint4* x, const uint4* weight, float epsilon, uint2* out, float* scale, int rows, int columns) {           \
    rmsNormQuantize<VECTORS>(x, weight, epsilon, out, scale, rows, columns);                                           \
  }

FIREQ_QUANTIZE(1, 3)
FIREQ_QUANTIZE(2, 2)
FIREQ_QUANTIZE(4, 1)
