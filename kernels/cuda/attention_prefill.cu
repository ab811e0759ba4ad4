// The instantiations of attention_prefill.cuh: attention_prefill_<scale format>, and variants that leave a stage of the overlap out.
#include "attention_prefill.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_PREFILL(NAME, ...)                                                                         \
  using NAME##_config = AttentionPrefillConfig<__VA_ARGS__>;                                                       \
  extern "C" __device__ const int NAME##_shared = kAttentionPrefillSharedBytes<NAME##_config>;                     \
  extern "C" __global__ void __launch_bounds__(NAME##_config::kThreads, 1) NAME(const __grid_constant__ AttentionPrefillParams p) { \
    attentionPrefill<NAME##_config>(p);                                                                            \
  }

FIREQ_ATTENTION_PREFILL(attention_prefill_bf16, ScaleFormat::kBf16Symmetric, 3, Overlap::kAlternate, true)
#ifdef FIREQ_ALL_VARIANTS
FIREQ_ATTENTION_PREFILL(attention_prefill_asym, ScaleFormat::kE4m3Asymmetric, 3, Overlap::kAlternate, true)
FIREQ_ATTENTION_PREFILL(attention_prefill_bf16_free, ScaleFormat::kBf16Symmetric, 3, Overlap::kValues, true)
FIREQ_ATTENTION_PREFILL(attention_prefill_bf16_serial, ScaleFormat::kBf16Symmetric, 3, Overlap::kNone, true)
FIREQ_ATTENTION_PREFILL(attention_prefill_bf16_1stage, ScaleFormat::kBf16Symmetric, 1, Overlap::kValues, true)
FIREQ_ATTENTION_PREFILL(attention_prefill_bf16_2stages, ScaleFormat::kBf16Symmetric, 2, Overlap::kAlternate, true)
FIREQ_ATTENTION_PREFILL(attention_prefill_bf16_exactmax, ScaleFormat::kBf16Symmetric, 3, Overlap::kAlternate, false)
#endif
