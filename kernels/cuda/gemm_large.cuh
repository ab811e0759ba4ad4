// INT4 weights × FP8 activations for many tokens (M ≥ 256): D[M, N] = (x8 · diag(tokenScale))[M, K] · W[N, K]ᵀ in BF16.
//
// Two multiplying warpgroups own kRowBlocks × 64 features each; a third fetches. Group scales are exact and need no
// second accumulator: before group g is added, the accumulator is multiplied by scale(g−1) / scale(g), and the last scale
// goes to the epilogue. While one 64-row accumulator is rescaled the other one multiplies.
//
// * Blocks of a cluster take neighbouring features of the same tokens, and each fetches a part of the activation tile
//   for all of them: L2 gives a third less.
// * The decode of a group hides under the multiplications before it; the output leaves through the copy engine.
// * Blocks are persistent and walk the tiles in groups of `tokenTilesPerSweep` token tiles, so that their activations stay
//   in the L2 while the weights stream by.
#pragma once
#include <cuda.h>
#include <cstdint>
#include <type_traits>

#include "epilogue.cuh"
#include "int4.cuh"
#include "kernel_info.h"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

struct GemmLargeParams {
  CUtensorMap x;    // E4M3 [M, K], box {128, kTokens / kCluster}, 128-byte swizzle
  // BF16 [M, N], box {64, kStoreTokens}, 128-byte swizzle; with kSiluMul [M, N / 2], box {32, kStoreTokens}, 64-byte
  CUtensorMap out;
  const uint8_t* weight;
  const float* tokenScale;
  EpilogueOperands operands;
  int M, N, K;
  int tokenTilesPerSweep;
};

template <int kRowBlocks_, int kTokenParts_, int kDepth_, int kTokens_, int kCluster_, int kStages_, int kSection_,
          Epilogue kEpilogue_, Codes kCodes_, ScaleType kScale_>
struct GemmLargeConfig {
  static constexpr int kRowBlocks = kRowBlocks_;  // 64-row blocks a warpgroup
  static constexpr int kTokens = kTokens_;
  static constexpr int kTokenParts = kTokenParts_;  // accumulators a row block
  static constexpr int kPartTokens = kTokens / kTokenParts;
  // 2: even and odd groups go to accumulators of their own, which meet in the end. A small tile then has two groups in
  // flight where a large one has its two parts.
  static constexpr int kDepth = kDepth_;
  static constexpr int kUnits = kRowBlocks * kTokenParts;
  static constexpr int kCluster = kCluster_;
  static constexpr int kStages = kStages_;
  static constexpr Epilogue kEpilogue = kEpilogue_;
  static constexpr Codes kCodes = kCodes_;
  static constexpr ScaleType kScale = kScale_;

  static constexpr int kSection = kSection_;  // groups between two points with nothing in flight
  // Decode the next section's first group under the last one's multiplications; two row blocks have no registers for it.
  static constexpr bool kCarry = kRowBlocks == 1;
  // A tile's groups are padded with empty stages to whole turns of the ring.
  static constexpr bool kPadded = kDepth == 1 && kSection % kStages == 0;
  static constexpr int kWarpgroups = 2;
  static constexpr int kBlocks = kWarpgroups * kRowBlocks;
  static constexpr int kFeatures = kBlocks * kBlockRows;
  static constexpr int kXBytes = kTokens * kGroupSize;
  static constexpr int kStoreTokens = kPartTokens % 32 ? 16 : 32;  // tokens a store of the copy engine
  static constexpr int kStoreBytes = kStoreTokens * kBlockRows * 2;
  static constexpr int kStoreBuffers = kStages * (kXBytes + kBlocks * kBlockBytes<ScaleType::kFp32>) <= 176 * 1024 ? 4 : 2;  // a warpgroup
  static constexpr int kThreads = (kWarpgroups + 1) * 128;

  static_assert(kPartTokens % 16 == 0 && kPartTokens <= 128, "an accumulator takes a multiple of 16 tokens, at most 128");
  static_assert(kDepth == 1 || (kRowBlocks == 1 && kTokenParts == 1), "alternating accumulators hold one part each");
  static_assert(kTokens / kCluster <= 256, "a copy-engine box has at most 256 rows");
  static_assert(kXBytes / kCluster % 1024 == 0, "each block fetches whole swizzle atoms");
  static_assert(kSection <= 2 * kStages, "stages are counted within two turns of the ring");
};

template <class C>
struct GemmLargeShared {
  alignas(1024) uint8_t x[C::kStages][C::kXBytes];
  alignas(1024) uint8_t store[C::kWarpgroups][C::kStoreBuffers][C::kStoreBytes];
  alignas(128) uint8_t weight[C::kStages][C::kBlocks][kBlockBytes<C::kScale>];
  alignas(16) float tokenScale[C::kWarpgroups][C::kTokens];
  alignas(8) uint64_t full[C::kStages];
  alignas(8) uint64_t empty[C::kStages];
};

template <class C>
constexpr int kGemmLargeSharedBytes = sizeof(GemmLargeShared<C>) + 1024;  // the kernel aligns its base

template <class C>
constexpr KernelInfo kGemmLargeInfo{C::kFeatures, C::kTokens, 1, C::kStoreTokens, C::kCluster, C::kThreads, kGemmLargeSharedBytes<C>,
                                    C::kCodes == Codes::kFull, kScaleBytes<C::kScale>};

/// Tile number → token tile and feature tile (of the whole cluster), sweeping all features for a few token tiles at a time.
struct TileOrder {
  int tokenTiles, featureTiles, perSweep;
  __device__ __forceinline__ void locate(int tile, int& token, int& feature) const {
    const int sweep = tile / (perSweep * featureTiles);
    const int first = sweep * perSweep;
    const int width = min(perSweep, tokenTiles - first);
    const int within = tile - first * featureTiles;
    token = first + within % width;
    feature = within / width;
  }
  __device__ __forceinline__ int count() const { return tokenTiles * featureTiles; }
};

/// One thread's part of fetching: part 0 the activations, the others a block of weights each. A copy of the engine costs its
/// thread some 150 cycles, so one thread for all of them would fetch a stage slower than it is multiplied.
template <class C>
__device__ __forceinline__ void fetchTiles(const GemmLargeParams& p, GemmLargeShared<C>& shared, const TileOrder& order, int part) {
  const uint32_t rank = C::kCluster > 1 ? ptx::clusterRank() : 0;
  const int clusters = gridDim.x / C::kCluster, groups = p.K / kGroupSize, blocks = (p.N + kBlockRows - 1) / kBlockRows;
  constexpr int kPart = C::kTokens / C::kCluster;
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;
  Ring<C::kStages> ring;
  const uint32_t full = ptx::smemAddress(shared.full), empty = ptx::smemAddress(shared.empty);
  const uint32_t x = ptx::smemAddress(shared.x) + rank * (kPart * kGroupSize), weight = ptx::smemAddress(shared.weight);
  for (int tile = blockIdx.x / C::kCluster; tile < order.count(); tile += clusters) {
    int token, feature;
    order.locate(tile, token, feature);
    const int firstBlock = (feature * C::kCluster + rank) * C::kBlocks;
    const int validBlocks = max(0, min(C::kBlocks, blocks - firstBlock));
    const int row = token * C::kTokens + rank * kPart;
    const uint8_t* from = p.weight + static_cast<size_t>(firstBlock + part - 1) * groups * kBlock;
    for (int g = 0; g < groups; g++, ring.advance(), from += kBlock) {
      const int stage = ring.stage;
      ptx::barrierWait(empty + stage * 8, ring.parity ^ 1);
      if (part == 0) {
        ptx::barrierArriveExpect(full + stage * 8, C::kXBytes + validBlocks * kBlock);
        if constexpr (C::kCluster > 1)
          ptx::copyTileMulticast(x + stage * C::kXBytes, &p.x, g * kGroupSize, row, full + stage * 8, (1 << C::kCluster) - 1);
        else
          ptx::copyTile(x + stage * C::kXBytes, &p.x, g * kGroupSize, row, full + stage * 8);
      } else {
#pragma unroll
        for (int b = 0; b < C::kBlocks; b += kFetchParts - 1)
          if (b + part - 1 < validBlocks)
            ptx::copyBulk(weight + (stage * C::kBlocks + b + part - 1) * kBlock, from + static_cast<size_t>(b) * groups * kBlock, kBlock,
                          full + stage * 8);
      }
    }
    if constexpr (C::kPadded)
      for (; ring.stage != 0; ring.advance()) {
        if (part > 0) continue;
        ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
        ptx::barrierArrive(full + ring.stage * 8);
      }
  }
}

/// Finishes 64-feature accumulators and stores them, kStoreTokens tokens at a time.
template <class C>
struct StoreQueue {
  static constexpr int kTiles = C::kStoreTokens / 8, kPieces = C::kPartTokens / C::kStoreTokens;  // of 16 × 8
  static_assert(C::kEpilogue == Epilogue::kLinear || kTiles == 4, "kSiluMul stores 32 tokens at a time");
  uint32_t buffers, tokenScale;
  int warpgroup, buffer = 0;

  /// feature, token: of the first element; part: which part of the tile's tokens this is.
  __device__ __forceinline__ void store(const GemmLargeParams& p, float (&d)[C::kPartTokens / 2], float2 scale,
                                        int feature, int token, int part) {
    const int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32, warpFeature = feature + warp * 16;
    const float2 bias = loadBias(p.operands.bias, warpFeature, p.N);
    const bool adds = C::kEpilogue == Epilogue::kLinear && p.operands.residual != nullptr;
    uint2 residual[kTiles];
    auto loadResidual = [&](int piece) {
#pragma unroll
      for (int i = 0; i < kTiles; i++)
        residual[i] =
            loadTile(p.operands.residual, p.N, p.M, warpFeature, token + (piece * kTiles + i) * 8);
    };
    token += part * C::kPartTokens;
    if (adds) loadResidual(0);
#pragma unroll
    for (int piece = 0; piece < kPieces; piece++) {
      const uint32_t base = buffers + buffer * C::kStoreBytes;
      float4 v[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; i++) {
        const int c = piece * kTiles + i;
        const float2 t = ptx::loadSharedFloat2(tokenScale + (part * C::kPartTokens + c * 8 + lane % 4 * 2) * 4);
        v[i] = make_float4(d[4 * c] * scale.x * t.x + bias.x, d[4 * c + 1] * scale.x * t.y + bias.x,
                           d[4 * c + 2] * scale.y * t.x + bias.y, d[4 * c + 3] * scale.y * t.y + bias.y);
        if (adds) addTile(v[i], residual[i]);
      }
      if (adds && piece + 1 < kPieces) loadResidual(piece + 1);
      stage(base, v, warp, lane);
      ptx::fenceAsyncShared();
      // One barrier a piece: it also tells that the next piece's buffer has been read.
      if (thread == 0) ptx::storeWaitRead<C::kStoreBuffers - 2>();
      ptx::syncNamed(1 + warpgroup, 128);
      if (thread == 0) {
        ptx::storeTile(&p.out, base, C::kEpilogue == Epilogue::kSiluMul ? feature / 2 : feature,
                       token + piece * C::kStoreTokens);
        ptx::storeCommit();
      }
      if (++buffer == C::kStoreBuffers) buffer = 0;
    }
  }

  /// Writes a warp's tiles to the buffer, rows of tokens, swizzled as the output's tensor map says.
  __device__ __forceinline__ static void stage(uint32_t base, const float4 (&v)[kTiles], int warp, int lane) {
    if constexpr (C::kEpilogue == Epilogue::kSiluMul) {
      uint32_t packed[kTiles];
#pragma unroll
      for (int i = 0; i < kTiles; i++)
        packed[i] = ptx::packBf16(siluMul(v[i].x, v[i].z), siluMul(v[i].y, v[i].w));
      ptx::storeMatricesTransposed(base + lane * 64 + ((warp ^ (lane / 2 % 4)) * 16), packed[0], packed[1], packed[2],
                                   packed[3]);
    } else {
#pragma unroll
      for (int i = 0; i < kTiles; i += 2) {
        // Lane → matrix lane / 8: bit 0 picks features 8…15 of the warp's 16, bit 1 the second eight tokens.
        const int row = i * 8 + (lane / 16) * 8 + lane % 8, chunk = warp * 2 + (lane / 8) % 2;
        ptx::storeMatricesTransposed(base + row * 128 + ((chunk ^ (row % 8)) * 16), ptx::packBf16(v[i].x, v[i].y),
                                     ptx::packBf16(v[i].z, v[i].w), ptx::packBf16(v[i + 1].x, v[i + 1].y),
                                     ptx::packBf16(v[i + 1].z, v[i + 1].w));
      }
    }
  }
};

template <class C>
__device__ __forceinline__ void multiplyTiles(const GemmLargeParams& p, GemmLargeShared<C>& shared,
                                              const TileOrder& order) {
  constexpr int kR = C::kRowBlocks;
  const uint32_t rank = C::kCluster > 1 ? ptx::clusterRank() : 0;
  const int clusters = gridDim.x / C::kCluster, groups = p.K / kGroupSize;
  const int warpgroup = threadIdx.x / 128, thread = threadIdx.x % 128, lane = thread % 32;
  const int row = thread / 32 * 16 + lane / 4;  // and row + 8
  constexpr uint32_t kBlock = kBlockBytes<C::kScale>;

  const uint32_t full = ptx::smemAddress(shared.full), tile = wgmma::descriptorLow(ptx::smemAddress(shared.x));
  const uint32_t weight = ptx::smemAddress(shared.weight) + warpgroup * kR * kBlock;
  const uint32_t empty = ptx::clusterAddress(ptx::smemAddress(shared.empty), lane < C::kCluster ? lane : 0);
  StoreQueue<C> queue{ptx::smemAddress(shared.store[warpgroup]), ptx::smemAddress(shared.tokenScale[warpgroup]), warpgroup};

  constexpr int kScales = kR * C::kDepth;
  float d[C::kUnits * C::kDepth][C::kPartTokens / 2];
  float scale[kScales][2], ratio[kScales][2][2];  // each ratio twice, so that it can be read beside either register bank
  uint32_t a[C::kDepth + 1][kR][16];
  Ring<C::kStages> ring;
#pragma unroll
  for (int r = 0; r < kScales; r++) scale[r][0] = scale[r][1] = 1.f;

  auto release = [&](int stage) {
    if (lane < C::kCluster) ptx::barrierArriveCluster(empty + stage * 8);
  };
  // A group's operands come in two steps, each placed where its latency hides under a multiplication: shared memory →
  // registers, then decoding into the registers that the group before the last has left.
  struct Fetched {
    uint4 low, high;
    float scale[2];
  } fetched[kR];
  auto fetch = [&](int stage, int parity) {
    ptx::barrierWait(full + stage * 8, parity);
#pragma unroll
    for (int r = 0; r < kR; r++) {
      const uint32_t block = weight + stage * (C::kBlocks * kBlock) + r * kBlock;
      fetched[r].low = ptx::loadShared16(block + thread * 16);
      fetched[r].high = ptx::loadShared16(block + 2048 + thread * 16);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint32_t at = block + kBlockCodeBytes + (row + half * 8) * kScaleBytes<C::kScale>;
        fetched[r].scale[half] = C::kScale == ScaleType::kBf16 ? ptx::loadSharedBf16(at) : ptx::loadSharedFloat(at);
      }
    }
  };
  auto decodeFetched = [&](uint32_t (&codes)[kR][16], int set = 0) {
#pragma unroll
    for (int r = 0; r < kR; r++) {
      const int s = r + set;
      decode<C::kCodes>(fetched[r].low, fetched[r].high, codes[r]);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        ratio[s][half][0] = scale[s][half] * kRounding * ptx::reciprocal(fetched[r].scale[half]);
        asm volatile("mov.b32 %0, %1;" : "=f"(ratio[s][half][1]) : "f"(ratio[s][half][0]));
        scale[s][half] = fetched[r].scale[half];
      }
      wgmma::pin(codes[r]);
      wgmma::pinValues(ratio[s][0]);
      wgmma::pinValues(ratio[s][1]);
    }
  };
  auto rescale = [&](int unit) {
    wgmma::pin(d[unit]);
#pragma unroll
    for (int i = 0; i < C::kPartTokens / 2; i++) d[unit][i] *= ratio[C::kDepth == 2 ? unit : unit / C::kTokenParts][i / 2 % 2][i % 2];
    wgmma::pin(d[unit]);
  };
  auto multiply = [&](int stage, int unit, uint32_t (&codes)[16], bool first) {
    wgmma::fence();
    const uint32_t b = tile + stage * (C::kXBytes / 16) + unit % C::kTokenParts * (C::kPartTokens * kGroupSize / 16);
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<C::kPartTokens>::e4m3(d[unit], &codes[4 * step], wgmma::descriptor(b + 2 * step),
                                         !(first && step == 0));
    wgmma::commit();
  };

  // Adds kGroups groups. With kCarry the first is decoded in a[0], and the next is left there if there are more. Nothing is in
  // flight before or after: ptxas serializes wgmma when an accumulator is touched while another one multiplies across a
  // loop's back edge. For the same reason the first group rescales everything before it multiplies anything.
  auto addGroups = [&](auto count, bool first, bool more) {
    constexpr int kGroups = decltype(count)::value;
    // Whole turns of the ring make every stage's address a constant.
    constexpr bool kWholeTurns = kGroups % C::kStages == 0;
    if (!C::kCarry) {
      fetch(ring.stage, ring.parity);
      decodeFetched(a[0]);
    }
    more = more && C::kCarry;
    auto stageOf = [&](int u) { return kWholeTurns ? u % C::kStages : ring.stage; };
    auto parityOf = [&](int u) { return kWholeTurns ? ring.parity ^ (u / C::kStages & 1) : ring.parity; };
    int stage = 0;
#pragma unroll
    for (int u = 0; u < kGroups; u++) {
      const int previous = stage;
      stage = stageOf(u);
      if (!kWholeTurns) ring.advance();
#pragma unroll
      for (int unit = 0; unit < C::kUnits; unit++) {
        if (u == 0) {
          if (unit == 0) {
#pragma unroll
            for (int i = 0; i < C::kUnits; i++) rescale(i);
          }
        } else {
          wgmma::wait<C::kUnits - 1>();
          if (unit == C::kUnits - 1) release(previous);
          rescale(unit);
        }
        multiply(stage, unit, a[u & 1][unit / C::kTokenParts], first && u == 0);
        if (unit == 0 && u + 1 < kGroups) fetch(stageOf(u + 1), parityOf(u + 1));
      }
      if (u + 1 < kGroups) decodeFetched(a[(u + 1) & 1]);
    }
    if (kWholeTurns) ring.parity ^= kGroups / C::kStages & 1;
    if (more) fetch(ring.stage, ring.parity);
    if (more && kGroups % 2 == 0) decodeFetched(a[0]);
    wgmma::wait<0>();
#pragma unroll
    for (int unit = 0; unit < C::kUnits; unit++) wgmma::pin(d[unit]);
    release(stage);
    if (more && kGroups % 2 == 1) decodeFetched(a[0]);
  };

  // The same with even groups in one accumulator and odd groups in another.
  auto addAlternating = [&](auto count) {
    constexpr int kGroups = decltype(count)::value, kLead = kGroups < 2 ? kGroups : 2;
    const int firstStage = ring.stage;
    auto stageOf = [&](int u) { return firstStage + u < C::kStages ? firstStage + u : firstStage + u - C::kStages; };
#pragma unroll
    for (int u = 0; u < kLead; u++) {
      fetch(ring.stage, ring.parity);
      decodeFetched(a[u], u);
      ring.advance();
    }
#pragma unroll
    for (int u = 0; u < kLead; u++) rescale(u);
#pragma unroll
    for (int u = 0; u < kLead; u++) multiply(stageOf(u), u, a[u][0], false);
#pragma unroll
    for (int u = 2; u < kGroups; u++) {
      fetch(ring.stage, ring.parity);
      decodeFetched(a[u % 3], u % 2);
      wgmma::wait<1>();
      release(stageOf(u - 2));
      rescale(u % 2);
      multiply(stageOf(u), u % 2, a[u % 3][0], false);
      ring.advance();
    }
    wgmma::wait<0>();
#pragma unroll
    for (int u = 0; u < kLead; u++) {
      wgmma::pin(d[u]);
      release(stageOf(kGroups - kLead + u));
    }
  };

  for (int t = blockIdx.x / C::kCluster; t < order.count(); t += clusters) {
    int tokenTile, featureTile;
    order.locate(t, tokenTile, featureTile);
    const int token = tokenTile * C::kTokens;
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
      for (; g + C::kSection <= groups; g += C::kSection) addAlternating(std::integral_constant<int, C::kSection>{});
      for (; g < groups; g++) addAlternating(std::integral_constant<int, 1>{});
#pragma unroll
      for (int i = 0; i < C::kPartTokens / 2; i++)
        d[0][i] = d[0][i] * scale[0][i / 2 % 2] + d[1][i] * scale[1][i / 2 % 2];
    } else {
      if (C::kCarry) {
        fetch(ring.stage, ring.parity);
        decodeFetched(a[0]);
      }
      for (; g + C::kSection <= groups; g += C::kSection)
        addGroups(std::integral_constant<int, C::kSection>{}, g == 0, g + C::kSection < groups);
      for (; g < groups; g++) addGroups(std::integral_constant<int, 1>{}, g == 0, g + 1 < groups);
      // The next tile starts at the ring's start again.
      if constexpr (C::kPadded)
        for (; ring.stage != 0; ring.advance()) {
          ptx::barrierWait(full + ring.stage * 8, ring.parity);
          release(ring.stage);
        }
    }
#pragma unroll
    for (int i = 0; i < (C::kTokens + 127) / 128; i++)
      if (i * 128 + thread < C::kTokens)
        ptx::storeSharedFloat(queue.tokenScale + (i * 128 + thread) * 4, tokenScale[i] * kCodeUnit);
    ptx::syncNamed(1 + warpgroup, 128);
    const int feature = (featureTile * C::kCluster + rank) * C::kFeatures + warpgroup * kR * kBlockRows;
#pragma unroll
    for (int unit = 0; unit < C::kUnits; unit++) {
      const int r = unit / C::kTokenParts;
      const float2 last = C::kDepth == 2 ? make_float2(1.f, 1.f) : make_float2(scale[r][0], scale[r][1]);
      queue.store(p, d[unit], last, feature + r * kBlockRows, token, unit % C::kTokenParts);
    }
  }
  if (thread == 0) ptx::storeWait<0>();
}

template <class C>
__device__ __forceinline__ void gemmLarge(const GemmLargeParams& p) {
  extern __shared__ uint8_t raw[];
  auto& shared = *reinterpret_cast<GemmLargeShared<C>*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    for (int i = 0; i < C::kStages; i++) {
      ptx::barrierInit(ptx::smemAddress(&shared.full[i]), 1);
      ptx::barrierInit(ptx::smemAddress(&shared.empty[i]), C::kCluster * C::kWarpgroups * 4);
    }
    ptx::barrierInitFence();
  }
  if constexpr (C::kCluster > 1) {
    ptx::clusterArrive();
    ptx::clusterWait();
  } else {
    __syncthreads();
  }
  ptx::waitForPrevious();
  const TileOrder order{(p.M + C::kTokens - 1) / C::kTokens,
                        (p.N + C::kFeatures * C::kCluster - 1) / (C::kFeatures * C::kCluster), p.tokenTilesPerSweep};
  if (threadIdx.x >= C::kWarpgroups * 128) {
    // The three warpgroups share the 3 · 168 registers a thread of the launch: 40 + 2 · 232. More would wait for ever.
    ptx::shrinkRegisters<40>();
    if (threadIdx.x % 32 == 0) fetchTiles<C>(p, shared, order, threadIdx.x / 32 % kFetchParts);
  } else {
    ptx::growRegisters<232>();
    multiplyTiles<C>(p, shared, order);
  }
  // A block may still be signalled by its neighbours until they are done too.
  if constexpr (C::kCluster > 1) {
    ptx::clusterArrive();
    ptx::clusterWait();
  }
}

}  // namespace fireq
