// The instantiations of attention_store.cuh: attention_store_<format of the cache>_d<head dim>.
#include "attention_info.h"
#include "attention_store.cuh"

using namespace fireq;

#define FIREQ_ATTENTION_STORE(NAME, FORMAT)                                                                                  \
  extern "C" __device__ const AttentionInfo NAME##_info = {store::kWarps * 32, 0, store::kHeadsPerBlock, 0, 0};                   \
  extern "C" __global__ void __launch_bounds__(store::kWarps * 32, 2) NAME(const __grid_constant__ AttentionStoreParams p) { \
    attentionStore<FORMAT>(p);                                                                               \
  }

FIREQ_ATTENTION_STORE(attention_store_sym_d128, KvFormat::kInt4Symmetric)
FIREQ_ATTENTION_STORE(attention_store_asym_d128, KvFormat::kInt4Asymmetric)
