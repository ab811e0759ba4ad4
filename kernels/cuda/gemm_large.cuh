// INT4 weights × FP8 activations for many tokens (M ≥ 256): D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ in BF16.
//
// Two multiplying warpgroups own 64 features each; a third fetches. Group scales are exact and need no second accumulator:
// before group g is added, the accumulator is multiplied by scale(g−1) / scale(g), and the last scale goes to the epilogue.
// While one half of the tokens is rescaled the other one multiplies.
//
// * Blocks of a cluster take neighbouring features of the same tokens, and each fetches a part of the activation tile
//   for all of them: L2 gives a third less.
// * The decode of a group hides under the multiplications before it; the output leaves through the copy engine.
// * Clusters are persistent and share the work evenly (share.cuh). They walk the tiles in groups of `tokenTilesPerSweep` token
//   tiles, so that their activations stay in the L2 while the weights stream by.
#pragma once
#include <cstdint>
#include <type_traits>

#include "gemm_large_feed.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

template <class C>
__device__ __forceinline__ void multiplyTiles(const GemmLargeParams& p, GemmLargeShared<C>& shared, const TileOrder& order, ShareWalk walk) {
  const uint32_t rank = C::kCluster > 1 ? ptx::clusterRank() : 0;
  const int warpgroup = threadIdx.x / 128, thread = threadIdx.x % 128, lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;  // and row + 8
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;

  const uint32_t full = ptx::smemAddress(shared.full), tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  const uint32_t weight = ptx::smemAddress(shared.weight) + warpgroup * kBlock;
  uint32_t empty[C::kCluster];  // of each block
#pragma unroll
  for (int r = 0; r < C::kCluster; r++) empty[r] = ptx::clusterAddress(ptx::smemAddress(shared.empty), r);
  const uint32_t tokenScales = ptx::smemAddress(shared.tokenScale[warpgroup]), staged = ptx::smemAddress(shared.staged);

  constexpr int kUnits = C::kTokenParts;
  float d[kUnits * C::kDepth][C::kPartTokens / 2];
  float scale[C::kDepth][2], ratio[C::kDepth][2][2];  // each ratio twice, so that it can be read beside either register bank
  uint32_t a[C::kDepth + 1][16];
  Ring<C::kStages> ring;
#pragma unroll
  for (int r = 0; r < C::kDepth; r++) scale[r][0] = scale[r][1] = 1.f;

  auto release = [&](int stage) {
    __syncwarp();
#pragma unroll
    for (int r = 0; r < C::kCluster; r++) ptx::barrierArriveCluster(empty[r] + stage * 8);
  };
  // A group's operands come in two steps, each placed where its latency hides under a multiplication: shared memory →
  // registers, then decoding into the registers that the group before the last has left.
  struct Fetched {
    uint4 low, high;
    float scale[2];
  } fetched;
  auto fetch = [&] {
    ptx::barrierWait(full + ring.stage * 8, ring.parity);
    const uint32_t block = weight + ring.stage * (C::kWarpgroups * kBlock);
    fetched.low = ptx::loadShared16(block + thread * 16);
    fetched.high = ptx::loadShared16(block + 2048 + thread * 16);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
      fetched.scale[half] = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
    }
  };
  auto decodeFetched = [&](uint32_t (&codes)[16], int set = 0) {
    decode<C::kCodes>(fetched.low, fetched.high, codes);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      ratio[set][half][0] = scale[set][half] * kRounding * ptx::reciprocal(fetched.scale[half]);
      ratio[set][half][1] = ptx::another(ratio[set][half][0]);
      scale[set][half] = fetched.scale[half];
    }
    wgmma::pin(codes);
    wgmma::pinValues(ratio[set][0]);
    wgmma::pinValues(ratio[set][1]);
  };
  auto rescale = [&](int unit) {
    wgmma::pin(d[unit]);
#pragma unroll
    for (int i = 0; i < C::kPartTokens / 2; i++) d[unit][i] *= ratio[C::kDepth == 2 ? unit : 0][i / 2 % 2][i % 2];
    wgmma::pin(d[unit]);
  };
  auto multiply = [&](int stage, int unit, uint32_t (&codes)[16], bool first) {
    wgmma::fence();
    const uint32_t b = tile + stage * (C::kXBytes / 16) + unit % kUnits * (C::kPartTokens * kGroupSize / 16);
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<C::kPartTokens>::e4m3(d[unit], &codes[4 * step], wgmma::descriptor(b + 2 * step),
                                         !(first && step == 0));
    wgmma::commit();
  };

  // The ring's place is the same in all lanes. Where ptxas doesn't see that, each wgmma's descriptor is moved to uniform registers.
  auto makeUniform = [&] { ring.stage = __shfl_sync(~0u, ring.stage, 0), ring.parity = __shfl_sync(~0u, ring.parity, 0); };

  // Adds kGroups groups, the first of them decoded in a[0], and leaves the next one there if there are more. Nothing is in
  // flight before or after: ptxas serializes wgmma when an accumulator is touched while another one multiplies across a
  // loop's back edge. For the same reason the first group rescales everything before it multiplies anything.
  auto addGroups = [&](auto count, bool first, bool more) {
    constexpr int kGroups = decltype(count)::value;
    int stage = 0;
    makeUniform();
#pragma unroll
    for (int u = 0; u < kGroups; u++) {
      const int previous = stage;
      stage = ring.stage;
      ring.advance();
#pragma unroll
      for (int unit = 0; unit < kUnits; unit++) {
        if (u == 0) {
          if (unit == 0 && !first) {
#pragma unroll
            for (int i = 0; i < kUnits; i++) rescale(i);
          }
        } else {
          wgmma::wait<kUnits - 1>();
          if (unit == kUnits - 1) release(previous);
          rescale(unit);
        }
        multiply(stage, unit, a[u & 1], first && u == 0);
        if (unit == 0 && u + 1 < kGroups) fetch();
      }
      if (u + 1 < kGroups) decodeFetched(a[(u + 1) & 1]);
    }
    if (more) fetch();
    if (more && kGroups % 2 == 0) decodeFetched(a[0]);
    wgmma::wait<0>();
#pragma unroll
    for (int unit = 0; unit < kUnits; unit++) wgmma::pin(d[unit]);
    release(stage);
    if (more && kGroups % 2 == 1) decodeFetched(a[0]);
  };

  // The same with even groups in one accumulator and odd groups in another.
  auto addAlternating = [&](auto count) {
    constexpr int kGroups = decltype(count)::value, kLead = kGroups < 2 ? kGroups : 2;
    makeUniform();
    const int firstStage = ring.stage;
    auto stageOf = [&](int u) { return firstStage + u < C::kStages ? firstStage + u : firstStage + u - C::kStages; };
#pragma unroll
    for (int u = 0; u < kLead; u++) {
      fetch();
      decodeFetched(a[u], u);
      ring.advance();
    }
#pragma unroll
    for (int u = 0; u < kLead; u++) rescale(u);
#pragma unroll
    for (int u = 0; u < kLead; u++) multiply(stageOf(u), u, a[u], false);
#pragma unroll
    for (int u = 2; u < kGroups; u++) {
      fetch();
      decodeFetched(a[u % 3], u % 2);
      wgmma::wait<1>();
      release(stageOf(u - 2));
      rescale(u % 2);
      multiply(stageOf(u), u % 2, a[u % 3], false);
      ring.advance();
    }
    wgmma::wait<0>();
#pragma unroll
    for (int u = 0; u < kLead; u++) {
      wgmma::pin(d[u]);
      release(stageOf(kGroups - kLead + u));
    }
  };

  for (; !walk.done(); walk.next()) {
    int tokenTile, featureTile;
    order.locate(walk.tile, tokenTile, featureTile);
    const int token = tokenTile * C::kTokens, groups = walk.end - walk.group;
    float tokenScale[(C::kTokens + 127) / 128] = {};
#pragma unroll
    for (int i = 0; i < (C::kTokens + 127) / 128; i++)
      if (i * 128 + thread < C::kTokens && token + i * 128 + thread < p.M)
        tokenScale[i] = __ldg(p.tokenScale + token + i * 128 + thread);

    int g = 0;
    if constexpr (C::kDepth == 2) {
#pragma unroll
      for (int u = 0; u < 2; u++)
#pragma unroll
        for (int i = 0; i < C::kPartTokens / 2; i++) d[u][i] = 0.f;
#pragma unroll
      for (int u = 0; u < 2; u++) scale[u][0] = scale[u][1] = 1.f;  // 0 times a ratio of scales must stay 0
      for (; g + C::kSection <= groups; g += C::kSection) addAlternating(std::integral_constant<int, C::kSection>{});
      for (; g < groups; g++) addAlternating(std::integral_constant<int, 1>{});
#pragma unroll
      for (int i = 0; i < C::kPartTokens / 2; i++)
        d[0][i] = d[0][i] * scale[0][i / 2 % 2] + d[1][i] * scale[1][i / 2 % 2];
    } else {
      fetch();
      decodeFetched(a[0]);
      for (; g + C::kSection <= groups; g += C::kSection)
        addGroups(std::integral_constant<int, C::kSection>{}, g == 0, g + C::kSection < groups);
      for (; g < groups; g++) addGroups(std::integral_constant<int, 1>{}, g == 0, g + 1 < groups);
    }
    float last[2] = {1.f, 1.f};
    if (C::kDepth == 1) last[0] = scale[0][0], last[1] = scale[0][1];
    if (walk.leavesSum()) {
      const typename C::Kept kept(p.kept, blockIdx.x);
#pragma unroll
      for (int unit = 0; unit < kUnits; unit++) kept.put(unit, d[unit], last);
      ptx::fenceAsync();
      __syncwarp();
      if (lane == 0) ptx::barrierArrive(ptx::smemAddress(&shared.left));
      continue;
    }
    int firstSlot;  // of the stages that are the result's way out
    auto takeSlots = [&] {
      firstSlot = ring.stage;
#pragma unroll
      for (int slot = 0; slot < C::kSlots; slot++, ring.advance()) ptx::barrierWait(full + ring.stage * 8, ring.parity);
    };
    auto stageOf = [&](int slot) { return (firstSlot + slot) % C::kStages; };
    // This warpgroup's room for the result of an accumulator.
    auto slotOf = [&](int unit) { return (unit * C::kWarpgroups + warpgroup) / C::kSlotResults; };
    auto room = [&](int unit) {
      return ptx::smemAddress(shared.x[stageOf(slotOf(unit))]) + (unit * C::kWarpgroups + warpgroup) % C::kSlotResults * kResultBytes;
    };
    const bool adds = p.operands.residual != nullptr;
    takeSlots();
    if (walk.takesSum()) {
#pragma unroll
      for (int unit = 0; unit < kUnits; unit++)
#pragma unroll
        for (int i = 0; i < C::kPartTokens / 2; i++) d[unit][i] *= last[i / 2 % 2];
      last[0] = last[1] = 1.f;
      const typename C::Kept kept(p.kept, blockIdx.x - C::kCluster);
#pragma unroll
      for (int unit = 0; unit < kUnits; unit++) {
        const uint32_t from = room(unit) + thread * 16;
        kept.addTo(unit, d[unit], [&](int i) { return ptx::loadShared16(from + i * (128 * 16)); });
      }
      if (adds) {
#pragma unroll
        for (int slot = 0; slot < C::kSlots; slot++) release(stageOf(slot));
      }
      kept.free();
      walk.forOthers([&](int other) {
        const typename C::Kept kept(p.kept, other * C::kCluster + rank);
        if (lane == 0) kept.wait(warpgroup);
        __syncwarp();
#pragma unroll
        for (int unit = 0; unit < kUnits; unit++) kept.addTo(unit, d[unit]);
        kept.free();
      });
      if (adds) takeSlots();
    }
    ptx::syncNamed(1 + warpgroup, 128);  // the last tile's scales have been read
#pragma unroll
    for (int i = 0; i < (C::kTokens + 127) / 128; i++)
      if (i * 128 + thread < C::kTokens) ptx::storeSharedFloat(tokenScales + (i * 128 + thread) * 4, tokenScale[i] * kCodeUnit);
    ptx::syncNamed(1 + warpgroup, 128);
    const int feature = (featureTile * C::kCluster + rank) * C::kFeatures + warpgroup * kBlockRows;
    // Each form is a row of instructions of its own: to jump over what only another one needs costs fetches of them.
    auto stage = [&](auto kEpilogue, auto kAdds) {
#pragma unroll
      for (int unit = 0; unit < kUnits; unit++) {
        stageResult<decltype(kEpilogue)::value, decltype(kAdds)::value>(p, room(unit), d[unit], last, tokenScales + unit * (C::kPartTokens * 4),
                                                                        feature);
        ptx::fenceAsyncShared();
        __syncwarp();
        if (lane == 0) ptx::barrierArrive(staged + slotOf(unit) * 8);
      }
    };
    using Linear = std::integral_constant<Epilogue, Epilogue::kLinear>;
    if (p.epilogue == Epilogue::kSiluMul)
      stage(std::integral_constant<Epilogue, Epilogue::kSiluMul>{}, std::false_type{});
    else if (adds)
      stage(Linear{}, std::true_type{});
    else
      stage(Linear{}, std::false_type{});
  }
}

template <class C>
__device__ __forceinline__ void gemmLarge(const GemmLargeParams& p) {
  auto& shared = ptx::sharedMemory<GemmLargeShared<C>>();
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    beginRing(shared.full, shared.empty, C::kCluster * C::kWarpgroups * 128);
    for (int i = 0; i < C::kSlots; i++) ptx::barrierInit(ptx::smemAddress(&shared.staged[i]), C::kSlotResults * 4);
    ptx::barrierInit(ptx::smemAddress(&shared.left), C::kWarpgroups * 4);
    ptx::barrierInitFence();
  }
  if constexpr (C::kCluster > 1) {
    ptx::clusterArrive();
    ptx::clusterWait();
  } else {
    __syncthreads();
  }
  const TileOrder order{(p.M + C::kTokens - 1) / C::kTokens,
                        (p.N + C::kFeatures * C::kCluster - 1) / (C::kFeatures * C::kCluster), p.tokenTilesPerSweep};
  const ShareWalk walk(Shares{order.count(), p.K / kGroupSize, static_cast<int>(gridDim.x) / C::kCluster, p.cutTiles}, blockIdx.x / C::kCluster);
  if (threadIdx.x >= C::kWarpgroups * 128) {
    // The three warpgroups share the 3 · 168 registers a thread of the launch: 40 + 2 · 232. More would wait for ever.
    ptx::shrinkRegisters<40>();
    const int part = threadIdx.x / 32 % kFetchParts;
    if (threadIdx.x % 32 > 0) return;  // lanes that waited for the others would wake at every poll
    if (part <= C::kWarpgroups)
      fetchTiles<C>(p, shared, order, walk, part);
    else
      storeResults<C>(p, shared, order, walk);
  } else {
    ptx::growRegisters<232>();
    ptx::waitForPrevious();
    multiplyTiles<C>(p, shared, order, walk);
  }
  // A block may still be signalled by its neighbours until they are done too.
  if constexpr (C::kCluster > 1) {
    ptx::clusterArrive();
    ptx::clusterWait();
  }
}

}  // namespace fireq
