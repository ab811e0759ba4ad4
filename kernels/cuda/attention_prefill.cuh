// Attention of many new tokens a sequence over a paged cache that already holds them: out = softmax(q·K)·V, causal, grouped
// queries, q in E4M3 with a scale a token and head. Both products are FP8 wgmma, on tiles that attention_prefill_tiles.cuh has made.
//
// A block takes 128 queries of a head: two warpgroups of 64, and a third one that fetches tiles of 128 keys and values. Under a tile's
// softmax run the product of queries with the next tile's keys and that of the last tile's probabilities with its values, so that a
// warpgroup never waits for the tensor cores.
//
// * Queries stay in registers, in the order of channels in which keys are decoded; probabilities go from the accumulator of q·K to the
//   operand of the second product without leaving their lane.
// * The softmax is attention_prefill_softmax.cuh's: with its p, m and σ, O = Σ E4M3(p·σ[value])·code / Σ p.
#pragma once
#include <cstdint>

#include "attention_prefill_feed.cuh"
#include "attention_prefill_softmax.cuh"
#include "kv_layout.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"
#include "wgmma_half.cuh"

namespace fireq {

namespace prefill {

/// A lane's rows of queries (row and row + 8; a quarter of the channels) → A operands of steps of 32 channels, in the order of decoded
/// keys. from: the first row's queries in shared memory.
template <int kHeadDim>
__device__ __forceinline__ void loadQueries(uint32_t (&q)[kHeadDim / 32][4], uint32_t from, uint32_t pitch) {
  const int lane = ptx::threadNumber() % 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    // Channels 8 (4s + h) … + 7, and 16 more, by h. Heads of 128: s is lane; of 64, where a lane has one h: s is lane % 2.
    uint2 low[2], high[2];
    const uint32_t row = from + r * 8 * pitch;
    if constexpr (kHeadDim == 128) {
      const uint4 a = ptx::loadShared16(row + lane * 32), b = ptx::loadShared16(row + lane * 32 + 16);
      low[0] = {a.x, a.y}, low[1] = {a.z, a.w}, high[0] = {b.x, b.y}, high[1] = {b.z, b.w};
    } else {
      const uint32_t mine = row + (lane % 2 * 4 + lane / 2) * 8;
      low[0] = ptx::loadShared8(mine), high[0] = ptx::loadShared8(mine + 16);
    }
#pragma unroll
    for (int step = 0; step < kHeadDim / 32; step++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        // Heads of 128: l is the step, half is h; of 64: l = 2 · step + half.
        const int l = kHeadDim == 128 ? step : 2 * step + half, at = kHeadDim == 128 ? half : 0;
        const uint2 a = low[at], b = high[at];
        q[step][2 * half + r] = ptx::permute(l / 2 ? a.y : a.x, l / 2 ? b.y : b.x, l % 2 ? 0x7362 : 0x5140);
      }
  }
}

/// BF16 rows from a warp's accumulators, 16 rows, into shared memory.
template <int kHeadDim>
__device__ __forceinline__ void stageRows(const float (&o)[kHeadDim / 2], const float (&factor)[2], uint32_t to, uint32_t pitch) {
  const int lane = threadIdx.x % 32;
  to += lane % 16 * pitch + lane / 16 * 16;
#pragma unroll
  for (int k = 0; k < kHeadDim / 16; k++) {
    uint32_t w[4];  // rows, rows + 8; the next 8 channels
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = ptx::packBf16(o[8 * k + 2 * i] * factor[i % 2], o[8 * k + 2 * i + 1] * factor[i % 2]);
    ptx::storeMatrices(to + k * 32, w[0], w[1], w[2], w[3]);
  }
}

/// A warpgroup that multiplies.
template <class C>
__device__ __forceinline__ void attendTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32;
  // Read again where an item begins or ends: in the loop there are no registers to spare.
  const auto rowOfWarp = [] { return ptx::threadNumber() / 32 * 16; };
  const auto rowOfLane = [] { return ptx::threadNumber() / 32 * 16 + ptx::threadNumber() % 32 / 4; };
  const uint32_t keysFull = ptx::smemAddress(shared.keysFull), keysEmpty = ptx::smemAddress(shared.keysEmpty);
  const uint32_t valuesFull = ptx::smemAddress(shared.valuesFull), valuesEmpty = ptx::smemAddress(shared.valuesEmpty);
  const uint32_t keys = wgmma::descriptorLow(ptx::smemAddress(shared.keys)), values = wgmma::descriptorLow(ptx::smemAddress(shared.values));
  constexpr int kHeadDim = C::kHeadDim, kSteps = kHeadDim / 32, kOutputs = kHeadDim / 2;
  constexpr uint32_t kKeyTile = kKeys * kKeyRow / 16, kValueTile = kHeadDim * kKeys / 16;
  Ring<C::kStages> keyRing, valueRing;
  Softmax softmax;
  softmax.ones = ptx::unseen(0x3c003c00u, 0);  // or else ptxas puts it into each instruction, which has room for one
  const uint32_t nothing = p.workCount < 0;  // ptxas doesn't know: what depends on it keeps its place, which is 0.5 % of the time
  uint32_t q[kSteps][4];
  // Of tiles in turns: scores, and probabilities.
  uint32_t a[kScores], b[kScores], pa[4][4], pb[4][4];
  float o[kOutputs], queryScale[2];

  // All that the products take is in its registers before the first one begins.
  const auto begin = [&](uint32_t (&s)[kScores], uint32_t (&probabilities)[4][4]) {
    ptx::anew(s);
    wgmma::pin(o);
#pragma unroll
    for (int step = 0; step < kSteps; step++) wgmma::pin(q[step]);
#pragma unroll
    for (int step = 0; step < 4; step++) wgmma::pin(probabilities[step]);
    wgmma::fence();
  };
  const auto waitForKeys = [&] { ptx::barrierWait(keysFull + keyRing.stage * 8, keyRing.parity); };
  const auto waitForValues = [&] { ptx::barrierWait(valuesFull + valueRing.stage * 8, valueRing.parity); };
  const auto multiplyKeys = [&](uint32_t (&s)[kScores]) {
#pragma unroll
    for (int step = 0; step < kSteps; step++) wgmma::e4m3ToHalves(s, q[step], wgmma::descriptor(keys + keyRing.stage * kKeyTile + 2 * step), step > 0);
    wgmma::commit();
  };
  const auto multiplyValues = [&](uint32_t (&probabilities)[4][4], int accumulate) {
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<kHeadDim>::e4m3(o, probabilities[step], wgmma::descriptor(values + valueRing.stage * kValueTile + 2 * step), step > 0 || accumulate);
    wgmma::commit();
  };
  // Scales are looked at later: the first stage's barrier says, for each lane, that those of the round before have been.
  const auto leaveKeys = [&] {
    softmax.expectTile(ptx::smemAddress(&shared.scales[keyRing.parity][keyRing.stage]));
    __syncwarp();
    if (lane == 0 || keyRing.stage == 0) ptx::barrierArrive(keysEmpty + keyRing.stage * 8);
    keyRing.advance();
  };
  const auto leaveValues = [&] {
    if (lane == 0) ptx::barrierArrive(valuesEmpty + valueRing.stage * 8);
    valueRing.advance();
  };
  /// Hides what queries don't see of the last tile. position: its first token; visible: tokens that the item's first query sees; both:
  /// whether the tile's second half is looked at.
  const auto hide = [&](uint32_t (&s)[kScores], int position, int visible, bool both) {
    const int first = visible + rowOfLane() - position;
    if (__any_sync(~0u, first < kKeys / 2)) mask<0, kKeys / 16>(s, first - lane % 4 * 2);
    if (both) mask<kKeys / 16, kKeys / 8>(s, first - lane % 4 * 2);
  };
  /// The next item, whose queries take their registers. It has none if there is no such item.
  int parity = 0;  // of the item's barriers
  const auto takeQueries = [&] {
    const Queries<C>& from = shared.queries[group];
    const int row = rowOfLane() % C::kRows;
    ptx::barrierWait(ptx::smemAddress(shared.queriesFull + group), parity);
    const uint4 work = ptx::loadShared16(ptx::smemAddress(&from.work));
    loadQueries<kHeadDim>(q, ptx::smemAddress(from.rows[row]), from.kPitch);
#pragma unroll
    for (int h = 0; h < 2; h++) queryScale[h] = ptx::loadSharedFloat(ptx::smemAddress(from.scales + row + 8 * h));
    __syncwarp();
    if ((lane & nothing) == 0) ptx::barrierArrive(ptx::smemAddress(shared.queriesEmpty + group));
    parity ^= 1;
    return int4{static_cast<int>(work.x), static_cast<int>(work.y), static_cast<int>(work.z), static_cast<int>(work.w)};
  };
  const auto factors = [&] { return ptx::smemAddress(shared.factors) + ptx::threadNumber() * 8; };
  /// What is summed up, once m is another one. All of a warpgroup waits for its products at one place; then each warp may do this or not.
  const auto rescale = [&] {
    const float2 shrink = ptx::loadSharedFloat2(factors());
#pragma unroll
    for (int j = 0; j < kOutputs; j++) o[j] *= j / 2 % 2 ? shrink.y : shrink.x;
  };
  /// s, the tile's scores, become probabilities, while `next` become the next tile's scores and the last tile's probabilities meet its values.
  const auto turn = [&](int tile, uint32_t (&s)[kScores], uint32_t (&next)[kScores], uint32_t (&last)[4][4], uint32_t (&probabilities)[4][4]) {
    waitForKeys();
    waitForValues();
    begin(next, last);
    multiplyKeys(next);
    multiplyValues(last, tile > 1);
    if constexpr (C::kOverlap != Overlap::kBoth) wgmma::wait<C::kOverlap == Overlap::kNone ? 0 : 1>();
    softmax.takeTile();
    const bool raised = softmax.go(s, probabilities, true, factors());
    wgmma::wait<0>();
    wgmma::pin(next), wgmma::pin(o);
    if (raised) rescale();
    leaveKeys(), leaveValues();
  };

  int4 work = takeQueries();
  if (work.z == 0) return;
  waitForKeys();
  begin(a, pa);
  multiplyKeys(a);
  wgmma::wait<0>();
  wgmma::pin(a);
  for (;;) {  // a: scores of the first tile
    const int tiles = keyTiles(work);
    softmax.start(queryScale, p.softmaxScale);
    leaveKeys();
    softmax.takeTile();
    if (tiles > 1) waitForKeys();
    begin(b, pa);
    multiplyKeys(b);  // of nothing if there is one tile
    if (tiles == 1) hide(a, 0, work.w, true);
    softmax.begin(a, pa);
    wgmma::wait<0>();
    wgmma::pin(b);
    if (tiles > 1) leaveKeys();
#pragma unroll 1
    for (int tile = 1; tile < tiles - 1; tile++) {
      turn(tile, b, a, pa, pb);
      if (++tile == tiles - 1) {
#pragma unroll
        for (int j = 0; j < kScores; j++) b[j] = ptx::unseen(a[j], nothing);
#pragma unroll
        for (int j = 0; j < 16; j++) pa[j / 4][j % 4] = ptx::unseen(pb[j / 4][j % 4], nothing);
        break;
      }
      turn(tile, a, b, pb, pa);
    }
    if (tiles > 1) {
      waitForValues();
      begin(a, pa);
      multiplyValues(pa, tiles > 2);
      softmax.takeTile();
      const bool both = tiles * kKeys - kKeys / 2 < work.w + min(work.z, (group + 1) * C::kRows) - 1;
      hide(b, (tiles - 1) * kKeys, work.w, both);
      const bool raised = softmax.go(b, pb, both, factors());
      wgmma::wait<0>();
      wgmma::pin(o);
      if (raised) rescale();
      leaveValues();
    } else {
#pragma unroll
      for (int j = 0; j < 16; j++) pb[j / 4][j % 4] = ptx::unseen(pa[j / 4][j % 4], nothing);
    }
    waitForValues();
    begin(a, pb);
    multiplyValues(pb, tiles > 1);
    float factor[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float total = sumOverQuad(softmax.total[h]);
      factor[h] = total == 0.f ? 0.f : __fdividef(1 / kUnit, total);
    }
    work = takeQueries();
    if (work.z > 0) waitForKeys();
#pragma unroll
    for (int step = 0; step < kSteps; step++) wgmma::pin(q[step]);
    wgmma::fence();
    multiplyKeys(a);  // of nothing behind the last item
    wgmma::wait<1>();
    wgmma::pin(o);
    leaveValues();
    const int warp = rowOfWarp() / 16;
    ptx::barrierWait(ptx::smemAddress(shared.rowsEmpty + warp), parity ^ 1);  // of the item before: queries are one ahead
    stageRows<kHeadDim>(o, factor, ptx::smemAddress(shared.rows[warp]), Shared<C>::kRowPitch);
    __syncwarp();
    if (lane == 0) ptx::barrierArrive(ptx::smemAddress(shared.rowsFull + warp));
    wgmma::wait<0>();
    wgmma::pin(a);
    if (work.z == 0) break;
  }
}

}  // namespace prefill

/// grid: one block an SM; C::kThreads threads.
template <class C>
__device__ __forceinline__ void attentionPrefill(const AttentionPrefillParams& p) {
  using namespace prefill;
  extern __shared__ uint8_t memory[];
  auto& shared = *reinterpret_cast<Shared<C>*>((reinterpret_cast<uintptr_t>(memory) + 1023) & ~uintptr_t{1023});
  ptx::launchDependents();
  if (threadIdx.x == 0) shared.initBarriers();
  __syncthreads();
  ptx::waitForPrevious();
  // The three warpgroups share the 3 · 168 registers a thread of the launch.
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<40>();
    feed(p, shared);
  } else {
    ptx::growRegisters<232>();
    attendTiles<C>(p, shared);
  }
}

}  // namespace fireq
