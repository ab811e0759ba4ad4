// The instantiations of quantize.cuh: rows of at most 1, 2 or 4 vectors a thread.
#include "quantize.cuh"

using namespace fireq;

#define FIREQ_QUANTIZE(VECTORS)                                                                                        \
  extern "C" __global__ void __launch_bounds__(1024)                                                                   \
      quantize_tokens_##VECTORS(const uint4* x, uint2* out, float* scale, int columns) {                               \
    quantizeTokens<VECTORS>(x, out, scale, columns);                                                                   \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(1024) rms_norm_quantize_##VECTORS(                                      \
      const uint4* x, const uint4* weight, float epsilon, uint2* out, float* scale, int columns) {                     \
    rmsNormQuantize<VECTORS>(x, weight, epsilon, out, scale, columns);                                                 \
  }

FIREQ_QUANTIZE(1)
FIREQ_QUANTIZE(2)
FIREQ_QUANTIZE(4)
