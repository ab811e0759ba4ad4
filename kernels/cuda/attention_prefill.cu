// The instantiations of attention_prefill_tiles.cuh and attention_prefill.cuh: attention_tiles_<format>_d<headDim>, whose tiles
// attention_prefill_d<headDim> multiplies; attention_tiles_chunk_… takes new tokens from an E4M3 cache; with FIREQ_ALL_VARIANTS those that leave a stage of the overlap out, too.
#include "attention_info.h"
#include "attention_prefill.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_TILES(NAME, ...)                                                                          \
  using Tiles_##NAME = KvLayout<__VA_ARGS__>;                                                                     \
  extern "C" __device__ const AttentionInfo attention_tiles_##NAME##_info = {                                     \
      128, sizeof(prefill::TilesShared<Tiles_##NAME>) + 1024, 0, 0, sizeof(prefill::DecodedTile<Tiles_##NAME::kHeadDim>)}; \
  extern "C" __global__ void __launch_bounds__(128) attention_tiles_##NAME(const __grid_constant__ AttentionTilesParams p) { \
    attentionTiles<Tiles_##NAME>(p);                                                                              \
  }
#define FIREQ_ATTENTION_CHUNK_TILES(NAME, FORMAT, HEAD_DIM)                                                        \
  using Chunk_##NAME = KvLayout<KvFormat::kE4m3, HEAD_DIM>;                                                       \
  using Old_##NAME = KvLayout<FORMAT, HEAD_DIM>;                                                                  \
  extern "C" __device__ const AttentionInfo attention_tiles_chunk_##NAME##_info = {                               \
      128, sizeof(prefill::ChunkTilesShared<Old_##NAME, Chunk_##NAME>) + 1024, 0, 0, sizeof(prefill::DecodedTile<HEAD_DIM>)}; \
  extern "C" __global__ void __launch_bounds__(128)                                                               \
      attention_tiles_chunk_##NAME(const __grid_constant__ AttentionChunkTilesParams p) {                         \
    attentionChunkTiles<Old_##NAME, Chunk_##NAME>(p);                                                             \
  }
#define FIREQ_ATTENTION_PREFILL(NAME, ...)                                                          \
  using NAME = AttentionPrefillConfig<__VA_ARGS__>;                                                 \
  extern "C" __device__ const AttentionInfo attention_prefill_##NAME##_info = {                     \
      NAME::kThreads, kAttentionPrefillSharedBytes<NAME>, 0, NAME::kWarpgroups * NAME::kRows, 0};    \
  extern "C" __global__ void __launch_bounds__(NAME::kThreads, 1)                                   \
      attention_prefill_##NAME(const __grid_constant__ AttentionPrefillParams p) {                  \
    attentionPrefill<NAME>(p);                                                                      \
  }

FIREQ_ATTENTION_TILES(sym_d128, KvFormat::kInt4Symmetric, 128)
FIREQ_ATTENTION_TILES(asym_d128, KvFormat::kInt4Asymmetric, 128)
FIREQ_ATTENTION_TILES(e4m3_d128, KvFormat::kE4m3, 128)
FIREQ_ATTENTION_TILES(sym_d64, KvFormat::kInt4Symmetric, 64)
FIREQ_ATTENTION_TILES(asym_d64, KvFormat::kInt4Asymmetric, 64)
FIREQ_ATTENTION_TILES(e4m3_d64, KvFormat::kE4m3, 64)
FIREQ_ATTENTION_CHUNK_TILES(sym_d128, KvFormat::kInt4Symmetric, 128)
FIREQ_ATTENTION_CHUNK_TILES(asym_d128, KvFormat::kInt4Asymmetric, 128)
FIREQ_ATTENTION_CHUNK_TILES(sym_d64, KvFormat::kInt4Symmetric, 64)
FIREQ_ATTENTION_CHUNK_TILES(asym_d64, KvFormat::kInt4Asymmetric, 64)
FIREQ_ATTENTION_PREFILL(d128, 128, 4, Overlap::kBoth)
FIREQ_ATTENTION_PREFILL(d64, 64, 4, Overlap::kBoth)
#ifdef FIREQ_ALL_VARIANTS
FIREQ_ATTENTION_PREFILL(d128_values, 128, 4, Overlap::kValues)
FIREQ_ATTENTION_PREFILL(d128_serial, 128, 4, Overlap::kNone)
FIREQ_ATTENTION_PREFILL(d128_2stages, 128, 2, Overlap::kBoth)
FIREQ_ATTENTION_PREFILL(d128_1stage, 128, 1, Overlap::kBoth)
#endif
