// INT4 × FP8 for many tokens (gemm_large.cuh): what a launch takes, what lies in shared memory, and the warpgroup that fetches and stores.
#pragma once
#include <cuda.h>
#include <cstdint>

#include "epilogue.cuh"
#include "int4.cuh"
#include "kept_sum.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "ring.cuh"
#include "share.cuh"
#include "tile_order.cuh"
#include "tile_result.cuh"

namespace fireq {

struct GemmLargeParams {
  CUtensorMap x;    // E4M3 [M, K], box {128, kTokens / kCluster}, 128-byte swizzle
  // BF16 [M, N], box {64, kResultTokens}, 128-byte swizzle; for kSiluMul [M, N / 2], box {32, kResultTokens}, 64-byte
  CUtensorMap out;
  CUtensorMap residual;  // like out; of anything if there is none
  const uint8_t* weight;
  const float* tokenScale;
  EpilogueOperands operands;
  KeptSums kept;
  int M, N, K;
  int tokenTilesPerSweep;
  int cutTiles;  // see share.cuh
  // Not the kernel's own: the same instructions then serve gate_up and down. A kernel that no SM has run lately costs some 10 µs
  // to fetch its instructions.
  Epilogue epilogue;
};

template <int kTokenParts_, int kDepth_, int kTokens_, int kCluster_, int kStages_, int kSection_, Codes kCodes_, ScaleType kScale_>
struct GemmLargeConfig {
  static constexpr int kTokens = kTokens_;
  static constexpr int kTokenParts = kTokenParts_;  // accumulators that share the tile's tokens
  static constexpr int kPartTokens = kTokens / kTokenParts;
  // 2: even and odd groups go to accumulators of their own, which meet in the end. A small tile then has two groups in
  // flight where a large one has its two parts.
  static constexpr int kDepth = kDepth_;
  static constexpr int kCluster = kCluster_;
  static constexpr int kStages = kStages_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;

  static constexpr int kSection = kSection_;  // groups between two points with nothing in flight
  static constexpr int kWarpgroups = 2;
  static constexpr int kFeatures = kWarpgroups * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;
  // A tile's result leaves through two stages of the ring that are left out for it.
  static constexpr int kSlots = 2, kSlotResults = kXBytes / kResultBytes;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;

  using Kept = KeptSum<kWarpgroups, kTokenParts, kPartTokens / 2>;

  static_assert(Kept::kPieceBytes == kResultBytes);
  static_assert(kPartTokens == kResultTokens && kXBytes % kResultBytes == 0, "an accumulator takes 128 tokens");
  static_assert(kDepth == 1 || kTokenParts == 1, "alternating accumulators hold one part each");
  static_assert(kTokens / kCluster <= 256, "a copy-engine box has at most 256 rows");
  static_assert(kXBytes / kCluster % 1024 == 0, "each block fetches whole swizzle atoms");
  static_assert(kDepth == 1 || kSection <= kStages, "sections of two accumulators count stages within one turn of the ring");
};

template <class C>
struct GemmLargeShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(128) uint8_t weight[C::kStages][C::kWarpgroups][kBlockBytes<C::kScale>];
  alignas(16) float tokenScale[C::kWarpgroups][C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
  alignas(8) uint64_t staged[C::kSlots];  // a part of the result waits to be stored
  alignas(8) uint64_t left;               // the sum that this block keeps for another one is written
};

template <class C>
constexpr int kGemmLargeSharedBytes = sizeof(GemmLargeShared<C>) + 1024;  // the kernel aligns its base

template <class C>
constexpr KernelInfo kGemmLargeInfo{C::kFeatures, C::kTokens, 1, kResultTokens, C::kCluster, C::kThreads, kGemmLargeSharedBytes<C>,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>, C::Kept::kBytes};

/// One thread's part of fetching: part 0 the activations, 1 and 2 a block of weights each. A copy of the engine costs its
/// thread some 150 cycles, so one thread for all of them would fetch a stage slower than it is multiplied.
template <class C>
__device__ __forceinline__ void fetchTiles(const GemmLargeParams& p, GemmLargeShared<C>& shared, const TileOrder& order, ShareWalk walk,
                                           int part) {
  const uint32_t rank = C::kCluster > 1 ? ptx::clusterRank() : 0;
  const int groups = p.K / kGroupSize, blocks = (p.N + kBlockRows - 1) / kBlockRows;
  constexpr int kPart = C::kTokens / C::kCluster;
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  Ring<C::kStages> ring;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t x = ptx::smemAddress(shared.x) + rank * (kPart * kGroupSize);
  const uint32_t weight = ptx::smemAddress(shared.weight) + (part - 1) * kBlock;
  if (part == 0) ptx::waitForPrevious();  // weights don't depend on the kernel before
  for (; !walk.done(); walk.next()) {
    int token, feature;
    order.locate(walk.tile, token, feature);
    const int firstBlock = (feature * C::kCluster + rank) * C::kWarpgroups;
    const int valid = max(0, min(C::kWarpgroups, blocks - firstBlock));
    const int row = token * C::kTokens + rank * kPart;
    const uint8_t* from = p.weight + (static_cast<size_t>(firstBlock + part - 1) * groups + walk.group) * kBlock;
    for (int g = walk.group; g < walk.end; g++, ring.advance(), from += kBlock) {
      const int stage = ring.stage;
      ptx::barrierWait(empty + stage * 8, ring.parity ^ 1);
      if (part == 0) {
        ptx::barrierArriveExpect(full + stage * 8, C::kXBytes + valid * kBlock);
        if constexpr (C::kCluster > 1)
          ptx::copyTileMulticast(x + stage * C::kXBytes, &p.x, g * kGroupSize, row, full + stage * 8, (1 << C::kCluster) - 1);
        else
          ptx::copyTile(x + stage * C::kXBytes, &p.x, g * kGroupSize, row, full + stage * 8);
      } else if (part <= valid) {
        ptx::copyBulk(weight + stage * C::kWarpgroups * kBlock, from, kBlock, full + stage * 8);
      }
    }
    if (walk.leavesSum()) continue;
    // The stages that follow are the result's way out; before, the way in of the residual, or else of what the cluster before has
    // kept of the tile. Where both come, that has two stages of its own.
    auto bring = [&](auto copies) {
      for (int slot = 0; slot < C::kSlots; slot++, ring.advance()) {
        if (part > 0) continue;
        ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
        copies(slot, ptx::smemAddress(shared.x) + ring.stage * C::kXBytes, full + ring.stage * 8);
      }
    };
    const bool adds = p.operands.residual != nullptr;
    if (walk.takesSum()) {
      const typename C::Kept kept(p.kept, blockIdx.x - C::kCluster);
      if (part == 0) {
#pragma unroll
        for (int w = 0; w < C::kWarpgroups; w++) kept.wait(w);
        ptx::fenceAsync();
      }
      bring([&](int slot, uint32_t to, uint32_t barrier) {
        ptx::barrierArriveExpect(barrier, C::kXBytes);
        ptx::copyBulk(to, kept.sums + slot * C::kXBytes, C::kXBytes, barrier);
      });
    }
    if (adds)
      bring([&](int slot, uint32_t to, uint32_t barrier) {
        ptx::barrierArriveExpect(barrier, C::kXBytes);
        for (int i = 0; i < C::kSlotResults; i++) {
          const int result = slot * C::kSlotResults + i;
          ptx::copyTile(to + i * kResultBytes, &p.residual, firstBlock * kBlockRows + result % C::kWarpgroups * kBlockRows,
                        token * C::kTokens + result / C::kWarpgroups * kResultTokens, barrier);
        }
      });
    else if (!walk.takesSum())
      bring([&](int, uint32_t, uint32_t barrier) { ptx::barrierArrive(barrier); });
  }
}

/// One thread's part: stores the results that the multiplying warpgroups have staged.
template <class C>
__device__ __forceinline__ void storeResults(const GemmLargeParams& p, GemmLargeShared<C>& shared, const TileOrder& order, ShareWalk walk) {
  const uint32_t rank = C::kCluster > 1 ? ptx::clusterRank() : 0;
  const uint32_t x = ptx::smemAddress(shared.x), empty = ptx::smemAddress(shared.empty), staged = ptx::smemAddress(shared.staged);
  int stage = 0;
  auto pass = [&](int stages) { return (stage + stages) % C::kStages; };
  auto leave = [&](int left) {
#pragma unroll
    for (int r = 0; r < C::kCluster; r++) ptx::barrierArriveCluster(ptx::clusterAddress(empty, r) + left * 8, C::kWarpgroups * 128);
  };
  for (int parity = 0; !walk.done(); walk.next()) {
    stage = pass(walk.end - walk.group);
    if (walk.leavesSum()) {  // once in a share at most
      ptx::barrierWait(ptx::smemAddress(&shared.left), 0);
      typename C::Kept(p.kept, blockIdx.x).publish();
      continue;
    }
    if (walk.takesSum() && p.operands.residual != nullptr) stage = pass(C::kSlots);  // the sum's
    int token, feature;
    order.locate(walk.tile, token, feature);
    feature = (feature * C::kCluster + rank) * C::kFeatures, token *= C::kTokens;
#pragma unroll
    for (int slot = 0; slot < C::kSlots; slot++) {
      ptx::barrierWait(staged + slot * 8, parity);
#pragma unroll
      for (int i = 0; i < C::kSlotResults; i++) {
        const int result = slot * C::kSlotResults + i;
        const int column = feature + result % C::kWarpgroups * kBlockRows;
        ptx::storeTile(&p.out, x + pass(slot) * C::kXBytes + i * kResultBytes, p.epilogue == Epilogue::kSiluMul ? column / 2 : column,
                       token + result / C::kWarpgroups * kResultTokens);
      }
      ptx::storeCommit();
    }
    ptx::storeWaitRead<1>();
    leave(stage);
    ptx::storeWaitRead<0>();
    leave(pass(1));
    stage = pass(C::kSlots);
    parity ^= 1;
  }
  ptx::storeWait<0>();
}

}  // namespace fireq
