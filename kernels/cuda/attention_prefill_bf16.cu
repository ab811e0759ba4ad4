// The instantiations of attention_prefill_direct.cuh: attention_prefill_bf16_d<head dim>.
#include "attention_info.h"
#include "attention_prefill_direct.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_PREFILL_DIRECT(NAME, HEAD_DIM, WARPS, STAGES)                                                                    \
  using NAME##_config = prefill::DirectConfig<KvLayout<KvFormat::kBf16, HEAD_DIM>, WARPS, STAGES>;                                       \
  extern "C" __device__ const AttentionInfo NAME##_info = {NAME##_config::kThreads, sizeof(NAME##_config::Shared) + 128, 0,              \
                                                           NAME##_config::kQueries, 0};                                                  \
  extern "C" __global__ void __launch_bounds__(NAME##_config::kThreads, 1) NAME(const __grid_constant__ AttentionPrefillDirectParams p) { \
    attentionPrefillDirect<NAME##_config>(p);                                                                                            \
  }
// Seven warps and the one that fetches: with more a scheduler has three, and 168 registers for each.
//                             name                         head dim, warps, stages
FIREQ_ATTENTION_PREFILL_DIRECT(attention_prefill_bf16_d128, 128, 7, 8)
FIREQ_ATTENTION_PREFILL_DIRECT(attention_prefill_bf16_d64, 64, 7, 12)
