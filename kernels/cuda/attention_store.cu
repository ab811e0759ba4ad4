// The instantiations of attention_store.cuh: attention_store_<format of the cache>_d<head dim>.
#include "attention_info.h"
#include "attention_store.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_STORE(NAME, FORMAT, HEAD_DIM)                                                                                \
  extern "C" __device__ const AttentionInfo NAME##_info = {store::kWarps * 32, store::sharedBytes(HEAD_DIM), store::kHeads, store::kTokens, 0};      \
  extern "C" __global__ void __launch_bounds__(store::kWarps * 32, store::kBlocks) NAME(const __grid_constant__ AttentionStoreParams p) { \
    attentionStore<FORMAT, HEAD_DIM>(p);                                                                                             \
  }

FIREQ_ATTENTION_STORE(attention_store_sym_d128, KvFormat::kInt4Symmetric, 128)
FIREQ_ATTENTION_STORE(attention_store_asym_d128, KvFormat::kInt4Asymmetric, 128)
FIREQ_ATTENTION_STORE(attention_store_e4m3_d128, KvFormat::kE4m3, 128)
FIREQ_ATTENTION_STORE(attention_store_bf16_d128, KvFormat::kBf16, 128)
FIREQ_ATTENTION_STORE(attention_store_sym_d64, KvFormat::kInt4Symmetric, 64)
FIREQ_ATTENTION_STORE(attention_store_asym_d64, KvFormat::kInt4Asymmetric, 64)
FIREQ_ATTENTION_STORE(attention_store_e4m3_d64, KvFormat::kE4m3, 64)
FIREQ_ATTENTION_STORE(attention_store_bf16_d64, KvFormat::kBf16, 64)
