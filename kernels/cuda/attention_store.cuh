// What attention needs of a new token, in one pass over the QKV projection's output: RoPE, post-RoPE scaling, queries in E4M3
// with a scale a token and head, keys and values into the token's slot of the paged cache (kv_layout.cuh).
//
// * rope: the pair (i, i + D/2) is rotated by the angle position · inverseFrequencies[i], rounded to FP32; Llama 3.1's scaling
//   is in the frequencies. a' = fma(a, cos, −(b · sin)), b' = fma(b, cos, a · sin), cos and sin correctly rounded.
// * scaling: keys times keyScale, queries times queryScale (its inverse), per channel of a key-value head.
// * rounding as the ops quantizeFp8 and storeKv define it (packages/kernels); nothing is rounded to BF16 in between.
//
// A block has four tokens that follow each other, so 48 KB that do, too (32 query and 8 key-value heads of 128): the memory is faster when
// it isn't read all over at once. A warp's step is eight heads of one kind, of two of the tokens; four lanes have a head. The next
// step's bytes are on their way, each lane's own: warps meet only once, for the tokens' cos and sin.
#pragma once
#include <cstdint>

#include "attention_store_kv.cuh"
#include "attention_store_round.cuh"
#include "kv_layout.cuh"
#include "ptx.cuh"

namespace fireq {

struct AttentionStoreParams {
  const uint16_t* qkv;              // BF16 [tokens, (queryHeads + 2 · keyHeads) · D]: queries, keys, values
  const int32_t* positions;         // [tokens]
  const int32_t* slots;             // [tokens]: page · 64 + place in the page; negative: the token isn't stored
  const float* inverseFrequencies;  // [D / 2]
  const float* keyScale;            // [keyHeads, D], or null: no post-RoPE scaling
  const float* queryScale;          // [keyHeads, D]: 1 / keyScale
  uint8_t* q;                       // E4M3 [tokens, queryHeads, D]
  float* qScale;                    // [tokens, queryHeads]
  uint8_t* cache;                   // [pages, keyHeads, kPageBytes]
  int tokens, queryHeads, keyHeads;
};

namespace store {

constexpr int kWarps = 4, kTokens = 4;  // of a block
constexpr int kHeads = 32 / kLanes;     // of a step
constexpr int kBlocks = 5;              // of a multiprocessor
constexpr int sharedBytes(int headDim) { return kWarps * 2 * kHeads * headDim * 2; }

/// Eight heads of one kind, at most, of two tokens.
struct Step {
  bool isQuery, isValue;
  int token;   // the first
  int before;  // heads in front of its kind's
  int head;    // the first, among those of its kind
  int heads;   // of its kind

  __device__ __forceinline__ Step(const AttentionStoreParams& p, int first, int step) {
    const int querySteps = (p.queryHeads + kHeads - 1) / kHeads, keySteps = (p.keyHeads + kHeads - 1) / kHeads, steps = querySteps + 2 * keySteps;
    const int pair = step >= steps, within = step - (pair ? steps : 0), others = within - querySteps;
    isQuery = others < 0, isValue = others >= keySteps;
    token = first + 2 * pair;
    before = isQuery ? 0 : p.queryHeads + (isValue ? p.keyHeads : 0);
    head = (isQuery ? within : isValue ? others - keySteps : others) * kHeads;
    heads = isQuery ? p.queryHeads : p.keyHeads;
  }
};

}  // namespace store

/// grid: tokens / kTokens rounded up; and parts into which a block's steps go; kWarps warps each, sharedBytes(kHeadDim).
template <KvFormat kFormat, int kHeadDim>
__device__ __forceinline__ void attentionStore(const AttentionStoreParams& p) {
  using namespace store;
  using Layout = KvLayout<kFormat, kHeadDim>;
  using Value = ValueHalves<kFormat, kHeadDim>;
  constexpr int kGranules = Channels<kHeadDim>::kGranules;
  extern __shared__ __align__(16) uint4 rings[];
  __shared__ __align__(16) float turns[kTokens][kHeadDim];  // cos, sin
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, b = lane % kLanes, row = (p.queryHeads + 2 * p.keyHeads) * kHeadDim;
  const int first = blockIdx.x * kTokens, last = p.tokens - 1;
  const int steps = 2 * ((p.queryHeads + kHeads - 1) / kHeads + 2 * ((p.keyHeads + kHeads - 1) / kHeads));
  const int begin = steps * blockIdx.y / gridDim.y + warp, end = steps * (blockIdx.y + 1) / gridDim.y;
  uint4* const ring = rings + warp * 2 * kGranules * 32 + lane;
  ptx::launchDependents();
  ptx::waitForPrevious();

  // The lane's bytes of a step's token k. An absent token or head has its neighbour's.
  const auto fetch = [&](int at, int k) {
    if (at < end) {
      const Step step(p, first, at);
      const int head = step.before + min(step.head + lane / kLanes, step.heads - 1);
      const uint16_t* const from = p.qkv + static_cast<size_t>(min(step.token + k, last)) * row + head * kHeadDim + b * 8;
#pragma unroll
      for (int g = 0; g < kGranules; g++) ptx::copyAsync(ptx::smemAddress(ring + (k * kGranules + g) * 32), from + g * 32);
    }
    ptx::copyCommit();
  };
  fetch(begin, 0), fetch(begin, 1);

  const float position = static_cast<float>(__ldg(p.positions + min(first + warp, last)));
#pragma unroll
  for (int i = 0; i < kHeadDim / 2; i += 32) {
    const float2 turn = rotation(__fmul_rn(position, __ldg(p.inverseFrequencies + i + lane)));
    turns[warp][i + lane] = turn.x, turns[warp][kHeadDim / 2 + i + lane] = turn.y;
  }
  __syncthreads();

#pragma unroll 1
  for (int at = begin; at < end; at += kWarps) {
    const Step step(p, first, at);
    const int head = step.head + lane / kLanes, ownHead = min(head, step.heads - 1);
    const bool isHead = head < step.heads;
    const float* scales = step.isQuery ? p.queryScale : p.keyScale;
    if (scales != nullptr) scales += (step.isQuery ? ownHead / (p.queryHeads / p.keyHeads) : ownHead) * kHeadDim + b * 8;
    int slots[2];
    if (!step.isQuery) {
      slots[0] = step.token <= last ? __ldg(p.slots + step.token) : -1;
      slots[1] = step.token < last ? __ldg(p.slots + step.token + 1) : -1;
    }
    Value kept;
#pragma unroll 1
    for (int k = 0; k < 2; k++) {
      ptx::copyWait<1>();
      uint4 raw[kGranules];
#pragma unroll
      for (int g = 0; g < kGranules; g++) raw[g] = ring[(k * kGranules + g) * 32];
      Channels<kHeadDim> c(raw);
      fetch(at + kWarps, k);
      const int token = step.token + k;
      const bool exists = isHead && token <= last;
      if (!step.isValue) {
        c.rotate(turns[token - first] + b * 8);
        if (scales != nullptr) c.multiply(scales);
      }
      if (step.isQuery) {
        const float scale = divideQuery(c);
        const size_t to = static_cast<size_t>(token) * p.queryHeads + head;
        uint2* const codes = reinterpret_cast<uint2*>(p.q + to * kHeadDim) + b;
        if (!exists) continue;
#pragma unroll
        for (int g = 0; g < kGranules; g++) codes[4 * g] = packGranule(c.x + 8 * g);
        if (b == 0) p.qScale[to] = scale;
        continue;
      }
      const Rounded<kFormat, kHeadDim> rounded(c);
      const auto blockOf = [&](int slot) {
        return p.cache + (static_cast<size_t>(slot / kPageTokens) * p.keyHeads + head) * Layout::kPageBytes + slot % kPageTokens / kKvBlockTokens * Layout::kBlockBytes;
      };
      const int slot = k ? slots[1] : slots[0], inBlock = slot % kKvBlockTokens;
      const bool stores = isHead && slot >= 0;
      uint8_t* const block = blockOf(slot);
      if (Layout::kHasScales && stores && b == 0)
        *reinterpret_cast<uint16_t*>(block + Layout::kScales + inBlock * 4 + step.isValue * 2) = static_cast<uint16_t>(rounded.scale);
      if (!step.isValue) {
        rounded.storeKey(block, inBlock, stores);
        continue;
      }
      const Value halves = rounded.halves();
      if (k == 0) {
        kept = halves;
      } else if (slots[0] >= 0 && slots[0] % 2 == 0 && slot == slots[0] + 1) {
        storeValues(kept, halves, block + Layout::kValues, inBlock, isHead);
      } else {
        if (stores) storeValue(halves, block + Layout::kValues, inBlock);
        if (isHead && slots[0] >= 0) storeValue(kept, blockOf(slots[0]) + Layout::kValues, slots[0] % kKvBlockTokens);
      }
    }
  }
}

}  // namespace fireq
