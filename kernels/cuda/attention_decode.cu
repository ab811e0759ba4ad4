// The instantiations of attention_decode.cuh: attention_decode_q<queries a key-value head>_<scale format>.
#include "attention_decode.cuh"
#include "attention_info.h"

using namespace fireq;

#define FIREQ_ATTENTION_DECODE(NAME, FORMAT, TILES, PER_SM)                                                                   \
  extern "C" __device__ const AttentionInfo NAME##_info = {decode::kWarps * 32, decode::kWarps * sizeof(decode::WarpShared), 0, \
                                                           TILES * 8, decode::kPartialFloats * sizeof(float)};                \
  extern "C" __global__ void __launch_bounds__(128, PER_SM) NAME(const __grid_constant__ AttentionDecodeParams p) { \
    attentionDecode<FORMAT, TILES>(p);                                                                            \
  }

FIREQ_ATTENTION_DECODE(attention_decode_q8_sym_d128, KvFormat::kInt4Symmetric, 1, 3)
FIREQ_ATTENTION_DECODE(attention_decode_q8_asym_d128, KvFormat::kInt4Asymmetric, 1, 3)
FIREQ_ATTENTION_DECODE(attention_decode_q16_sym_d128, KvFormat::kInt4Symmetric, 2, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q16_asym_d128, KvFormat::kInt4Asymmetric, 2, 2)
