// The instantiations of attention_decode.cuh: attention_decode_q<queries a pass>_<format of the cache>_d<head dim>.
#include "attention_decode.cuh"
#include "attention_info.h"

using namespace fireq;

#define FIREQ_ATTENTION_DECODE(NAME, FORMAT, HEAD_DIM, TILES, WARPS, STAGES)                                                      \
  using NAME##_config = decode::Config<KvLayout<KvFormat::FORMAT, HEAD_DIM>, TILES, WARPS, STAGES>;                              \
  extern "C" __device__ const AttentionInfo NAME##_info = {NAME##_config::kThreads, sizeof(NAME##_config::Shared), 0,      \
                                                           TILES * 8, NAME##_config::kPartialFloats * sizeof(float)};             \
  static_assert(sizeof(NAME##_config::Shared) <= 227 * 1024, "shared memory of a block");                                    \
  extern "C" __global__ void __launch_bounds__(NAME##_config::kThreads, 1) NAME(const __grid_constant__ AttentionDecodeParams p) { \
    attentionDecode<NAME##_config>(p);                                                                                           \
  }
FIREQ_ATTENTION_DECODE(attention_decode_q8_sym_d128, kInt4Symmetric, 128, 1, 16, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q8_asym_d128, kInt4Asymmetric, 128, 1, 16, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q8_e4m3_d128, kE4m3, 128, 1, 8, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q8_bf16_d128, kBf16, 128, 1, 6, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q16_sym_d128, kInt4Symmetric, 128, 2, 8, 4)
FIREQ_ATTENTION_DECODE(attention_decode_q16_asym_d128, kInt4Asymmetric, 128, 2, 8, 4)
FIREQ_ATTENTION_DECODE(attention_decode_q16_e4m3_d128, kE4m3, 128, 2, 8, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q16_bf16_d128, kBf16, 128, 2, 5, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q8_sym_d64, kInt4Symmetric, 64, 1, 16, 4)
FIREQ_ATTENTION_DECODE(attention_decode_q8_asym_d64, kInt4Asymmetric, 64, 1, 16, 4)
FIREQ_ATTENTION_DECODE(attention_decode_q8_e4m3_d64, kE4m3, 64, 1, 12, 3)
FIREQ_ATTENTION_DECODE(attention_decode_q8_bf16_d64, kBf16, 64, 1, 10, 2)
FIREQ_ATTENTION_DECODE(attention_decode_q16_sym_d64, kInt4Symmetric, 64, 2, 8, 6)
FIREQ_ATTENTION_DECODE(attention_decode_q16_asym_d64, kInt4Asymmetric, 64, 2, 8, 6)
FIREQ_ATTENTION_DECODE(attention_decode_q16_e4m3_d64, kE4m3, 64, 2, 8, 4)
FIREQ_ATTENTION_DECODE(attention_decode_q16_bf16_d64, kBf16, 64, 2, 8, 2)
