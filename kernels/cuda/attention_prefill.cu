// The instantiations of attention_prefill_tiles.cuh and attention_prefill.cuh: attention_tiles_<format of the cache>_d<head dim> and
// attention_prefill_<…>_d<…>; with FIREQ_ALL_VARIANTS those that leave a stage of the overlap out, too.
#include "attention_info.h"
#include "attention_prefill.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_TILES(NAME, FORMAT)                                                                                \
  extern "C" __device__ const AttentionInfo attention_tiles_##NAME##_info = {128, sizeof(prefill::TilesShared) + 1024, 0, 0, \
                                                                             sizeof(prefill::DecodedTile)};                  \
  extern "C" __global__ void __launch_bounds__(128) attention_tiles_##NAME(const __grid_constant__ AttentionTilesParams p) { \
    attentionTiles<FORMAT>(p);                                                                                             \
  }
#define FIREQ_ATTENTION_PREFILL(NAME, ...)                                                          \
  using NAME = AttentionPrefillConfig<__VA_ARGS__>;                                                 \
  extern "C" __device__ const int attention_prefill_##NAME##_shared = kAttentionPrefillSharedBytes<NAME>; \
  extern "C" __device__ const AttentionInfo attention_prefill_##NAME##_info = {                     \
      NAME::kThreads, kAttentionPrefillSharedBytes<NAME>, 0, NAME::kWarpgroups * NAME::kRows, 0};    \
  extern "C" __global__ void __launch_bounds__(NAME::kThreads, 1)                                   \
      attention_prefill_##NAME(const __grid_constant__ AttentionPrefillParams p) {                  \
    attentionPrefill<NAME>(p);                                                                      \
  }

extern "C" __device__ const int attention_tiles_shared = sizeof(prefill::TilesShared) + 1024;  // the kernel aligns its base
FIREQ_ATTENTION_TILES(sym_d128, KvFormat::kInt4Symmetric)
FIREQ_ATTENTION_TILES(asym_d128, KvFormat::kInt4Asymmetric)
FIREQ_ATTENTION_PREFILL(sym_d128, KvFormat::kInt4Symmetric, 4, Overlap::kValues)
FIREQ_ATTENTION_PREFILL(asym_d128, KvFormat::kInt4Asymmetric, 4, Overlap::kValues)
#ifdef FIREQ_ALL_VARIANTS
FIREQ_ATTENTION_PREFILL(sym_d128_turns, KvFormat::kInt4Symmetric, 4, Overlap::kAlternate)
FIREQ_ATTENTION_PREFILL(sym_d128_serial, KvFormat::kInt4Symmetric, 4, Overlap::kNone)
FIREQ_ATTENTION_PREFILL(sym_d128_2stages, KvFormat::kInt4Symmetric, 2, Overlap::kValues)
FIREQ_ATTENTION_PREFILL(sym_d128_1stage, KvFormat::kInt4Symmetric, 1, Overlap::kValues)
#endif
