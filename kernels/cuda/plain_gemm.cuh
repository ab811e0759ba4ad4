// What the plain kernels share (gemm_dense.cuh, gemm_exact.cuh): multiplying warpgroups of 64 features each, one thread of
// another warpgroup that fetches, and K cut among the blocks of a cluster where there are few tiles.
#pragma once
#include <cstdint>

#include "epilogue.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "tile_order.cuh"

namespace fireq {

enum class PlainOut : int32_t {
  kBf16,
  kF32,
  kSiluMul,  // BF16 [M, N / 2]: silu(gate) · up; of each 16 features the first eight are the gate's, the others up's
};

/// All but x and W.
struct PlainProblem {
  const float* tokenScale;    // [M], or null for 1
  const float* channelScale;  // [N], or null for 1
  void* out;
  EpilogueOperands operands;  // no residual with kSiluMul
  int M, N, K;
  int tokenTilesPerSweep;  // that share a sweep over the features, so that their activations stay in the L2
  PlainOut kind;
};

/// Where a block's tile begins, and which part of K it takes: neighbouring clusters take the token tiles of one sweep, then
/// the next features.
template <class C>
struct PlainTile {
  int feature, token, rank, ranks;
  int first, last;  // steps of K

  __device__ __forceinline__ explicit PlainTile(const PlainProblem& p) : rank(ptx::clusterRank()), ranks(ptx::clusterSize()) {
    const TileOrder order{(p.M + C::kTokens - 1) / C::kTokens, (p.N + C::kFeatures - 1) / C::kFeatures, p.tokenTilesPerSweep};
    order.locate(blockIdx.x / ranks, token, feature);
    token *= C::kTokens, feature *= C::kFeatures;
    const int steps = p.K / C::kStep;
    first = steps * rank / ranks, last = steps * (rank + 1) / ranks;
  }
};

/// This block's shared memory: `x` or whatever the ring begins with, `tokenScale`, and the ring's barriers, `full` and `empty`.
/// The kernel before is done.
template <class C, class Shared>
__device__ __forceinline__ Shared& beginPlain() {
  auto& shared = ptx::sharedMemory<Shared>();
  ptx::launchDependents();
  if (threadIdx.x == 0) {
    beginRing(shared.full, shared.empty, C::kWarpgroups * 128);
    ptx::barrierInitFence();
  }
  __syncthreads();
  ptx::waitForPrevious();
  return shared;
}

/// Puts the scales of a tile's tokens where `finishPlain` finds them: loads that it waited for cost it a microsecond for
/// every 32 tokens. For the multiplying threads.
template <class C, class Shared>
__device__ __forceinline__ void loadTokenScales(const PlainProblem& p, const PlainTile<C>& tile, Shared& shared) {
  static_assert(C::kTokens <= C::kWarpgroups * 128, "a thread loads one");
  const int token = tile.token + threadIdx.x;
  if (threadIdx.x < C::kTokens)
    shared.tokenScale[threadIdx.x] = p.tokenScale == nullptr ? 1.f : token < p.M ? __ldg(p.tokenScale + token) : 0.f;
}

/// Scales, finishes and writes a warp's 16 features, 8 tokens at a time.
struct PlainWriter {
  const PlainProblem& p;
  const int feature;
  const uint32_t scales;  // of the tile's tokens, in shared memory
  float2 channel = make_float2(1.f, 1.f), bias;  // of this lane's two features

  __device__ __forceinline__ PlainWriter(const PlainProblem& p, int feature, uint32_t scales)
      : p(p), feature(feature), scales(scales) {
    bias = loadBias(p.operands.bias, feature, p.N);
    if (p.channelScale == nullptr || feature >= p.N) return;
    const float* at = p.channelScale + feature + threadIdx.x % 32 / 4;
    channel = make_float2(__ldg(at), __ldg(at + 8));
  }
  /// d: tokens 8 · at … of the tile that begins with `first`.
  __device__ __forceinline__ void write(float4 d, int first, int at) const {
    if (feature >= p.N) return;  // N is a multiple of 16
    const int lane = threadIdx.x % 32, token = first + at * 8, column = token + lane % 4 * 2;
    const float2 scale = ptx::loadSharedFloat2(scales + (at * 8 + lane % 4 * 2) * 4);
    d = make_float4(d.x * channel.x * scale.x + bias.x, d.y * channel.x * scale.y + bias.x,
                    d.z * channel.y * scale.x + bias.y, d.w * channel.y * scale.y + bias.y);
    if (p.operands.residual != nullptr) addTile(d, loadTile(p.operands.residual, p.N, p.M, feature, token));
    if (p.kind == PlainOut::kF32) return writeFloats(d, column);
    const bool isSilu = p.kind == PlainOut::kSiluMul;
    if (isSilu) d.x = siluMul(d.x, d.z), d.y = siluMul(d.y, d.w);
    const uint32_t low = ptx::transposeMatrix(ptx::packBf16(d.x, d.y)), high = ptx::transposeMatrix(ptx::packBf16(d.z, d.w));
    const int row = token + lane / 4, columns = isSilu ? p.N / 2 : p.N, from = isSilu ? feature / 2 : feature;
    if (row >= p.M) return;
    uint16_t* out = static_cast<uint16_t*>(p.out) + static_cast<size_t>(row) * columns + from + lane % 4 * 2;
    *reinterpret_cast<uint32_t*>(out) = low;
    if (!isSilu) *reinterpret_cast<uint32_t*>(out + 8) = high;
  }
  __device__ __forceinline__ void writeFloats(float4 d, int column) const {
    float* out = static_cast<float*>(p.out) + static_cast<size_t>(column) * p.N + feature + threadIdx.x % 32 / 4;
    if (column < p.M) out[0] = d.x, out[8] = d.z;
    if (column + 1 < p.M) out[p.N] = d.y, out[p.N + 8] = d.w;
  }
};

/// Stores this warpgroup's 64 features × kTokens, in the fragment layout of wgmma; first the blocks of a cluster add up their
/// parts of K, in the order of their ranks, in the ring, which is no longer needed.
template <class C, class Shared, int kParts, int kPartRegisters>
__device__ __forceinline__ void finishPlain(const PlainProblem& p, const PlainTile<C>& tile, const float (&d)[kParts][kPartRegisters],
                                            Shared& shared) {
  constexpr int kTiles = C::kTokens / 8, kPartTiles = kTiles / kParts;
  static_assert(kPartTiles * 4 == kPartRegisters, "a tile of 8 tokens is four registers");
  static_assert(C::kWarpgroups * 4 * kTiles * 512 <= C::kStages * C::kStageBytes, "sums fit the ring");
  const int warp = threadIdx.x / 32;
  const PlainWriter writer(p, tile.feature + warp * 16, ptx::smemAddress(shared.tokenScale));
  const auto fragment = [&](int part, int c) {
    return make_float4(d[part][4 * c], d[part][4 * c + 1], d[part][4 * c + 2], d[part][4 * c + 3]);
  };
  const uint32_t mine = ptx::smemAddress(&shared) + (warp * kTiles * 32 + threadIdx.x % 32) * 16;
  ptx::syncNamed(1, C::kWarpgroups * 128);  // scales are there, and every warp has left the ring
#pragma unroll
  for (int part = 0; part < kParts; part++)
#pragma unroll
    for (int c = 0; c < kPartTiles; c++) {
      const int at = part * kPartTiles + c;
      if (tile.ranks == 1)
        writer.write(fragment(part, c), tile.token, at);
      else
        ptx::storeSharedFloat4(mine + at * 512, fragment(part, c));
    }
  if (tile.ranks == 1) return;
  ptx::clusterArrive();
  ptx::clusterWait();
  for (int at = tile.rank; at < kTiles && tile.token + at * 8 < p.M; at += tile.ranks) {
    float4 sum = ptx::loadClusterFloat4(ptx::clusterAddress(mine + at * 512, 0));
    for (int rank = 1; rank < tile.ranks; rank++) {
      const float4 v = ptx::loadClusterFloat4(ptx::clusterAddress(mine + at * 512, rank));
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    writer.write(sum, tile.token, at);
  }
  ptx::clusterArriveRelaxed();  // nobody reads this block's sums any more
  ptx::clusterWait();
}

}  // namespace fireq
