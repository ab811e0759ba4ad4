// Attention of many new tokens a sequence over a paged INT4 cache that already holds them: out = softmax(q·K)·V, causal, grouped
// queries, q in E4M3 with a scale a token and head. Both products are FP8 wgmma.
//
// A block takes 128 queries of a head: two warpgroups of 64, and a third one that loads and decodes tiles of 128 keys and values
// (attention_prefill_load.cuh). Three stages overlap: decoding of the tiles to come; q·K of the next tile and its softmax; the product
// of this tile's probabilities with its values, which runs under that softmax. The other warpgroup's products fill the rest.
//
// * Queries stay in registers, in the order of channels in which keys are decoded; probabilities go from the accumulator of q·K to the
//   operand of the second product without leaving their lane.
// * scores are exponents of two: y = (q·codes − zero · Σq) · qScale · factor[key] + log₂ σ[value]. A value's scale is in its probability:
//   O = Σ p·(code − zero) / Σ p/σ with p = 2^(y − m).
// * Speculation: m needs only be near a row's largest y. A tile is rounded with the m at hand, and again if a probability saturated.
#pragma once
#include <cstdint>

#include "attention_prefill_load.cuh"
#include "kv_layout.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

enum class Overlap {
  kNone,        // a warpgroup's products and softmax follow each other
  kValues,      // the product with values runs under the next tile's softmax
  kAlternate,   // and the warpgroups issue their products in turns
};

template <ScaleFormat kFormat_, int kStages_, Overlap kOverlap_, bool kSpeculative_>
struct AttentionPrefillConfig {
  static constexpr ScaleFormat kFormat = kFormat_;
  static constexpr int kStages = kStages_;
  static constexpr Overlap kOverlap = kOverlap_;
  static constexpr bool kSpeculative = kSpeculative_;
  static constexpr int kWarpgroups = 2, kRows = prefill::kQueries / kWarpgroups;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  // A probability is up to 2^kLog2Most when m is a row's largest y; E4M3 reaches 448, so speculation leaves 1.75 to grow.
  static constexpr float kLog2Most = kSpeculative ? 7.f : 8.f;
  static constexpr bool kAsymmetric = kFormat == ScaleFormat::kE4m3Asymmetric;
};

template <class C>
constexpr int kAttentionPrefillSharedBytes = sizeof(prefill::Shared<C>) + 1024;  // the kernel aligns its base

namespace prefill {

constexpr int kScores = kKeys / 2;  // of a lane: [i][row, row + 8][e], token 8i + 2 (lane % 4) + e

__device__ __forceinline__ float exp2Fast(float x) {
  float v;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(v) : "f"(x));
  return v;
}
__device__ __forceinline__ uint32_t packE4m3(float a, float b, float c, float d) {
  uint32_t v;
  asm("{.reg .b16 low, high;\ncvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\ncvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\nmov.b32 %0, {low, high};\n}"
      : "=r"(v) : "f"(a), "f"(b), "f"(c), "f"(d));
  return v;
}
__device__ __forceinline__ void arriveNamed(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

/// The larger one; a NaN only if both are.
__device__ __forceinline__ float overQuad(float v) {
  v = fmaxf(v, __shfl_xor_sync(~0u, v, 1));
  return fmaxf(v, __shfl_xor_sync(~0u, v, 2));
}
__device__ __forceinline__ float sumOverQuad(float v) {
  v += __shfl_xor_sync(~0u, v, 1);
  return v + __shfl_xor_sync(~0u, v, 2);
}

/// A lane's 32 channels of its two rows of queries, on their way.
struct FetchedQueries {
  uint4 bytes[2][2];
  float scale[2];

  __device__ __forceinline__ void fetch(const AttentionPrefillParams& p, const int4& tile, int row) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const size_t at = tile.y + static_cast<size_t>(min(row + 8 * h, tile.z - 1)) * p.queryHeads;
      const uint4* from = reinterpret_cast<const uint4*>(p.q + at * kHeadDim) + threadIdx.x % 4 * 2;
      bytes[h][0] = __ldg(from), bytes[h][1] = __ldg(from + 1), scale[h] = __ldg(p.qScale + at);
    }
  }
  /// → A operands of four steps of 32 channels, in the order of decoded keys.
  __device__ __forceinline__ void arrange(uint32_t (&q)[4][4]) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const uint32_t w[8] = {bytes[h][0].x, bytes[h][0].y, bytes[h][0].z, bytes[h][0].w, bytes[h][1].x, bytes[h][1].y, bytes[h][1].z, bytes[h][1].w};
#pragma unroll
      for (int l = 0; l < 4; l++)
#pragma unroll
        for (int half = 0; half < 2; half++) q[l][2 * half + h] = permute(w[2 * half + l / 2], w[4 + 2 * half + l / 2], l % 2 ? 0x7362 : 0x5140);
    }
  }
};

/// The softmax of a lane's two rows.
template <class C>
struct Softmax {
  float scale[2], zero[2];   // on q·codes; Σq · scale in units of codes, times the zero point if that is one for all
  float largest[2], total[2], shrink[2];
  uint32_t columns;          // of this lane, in shared memory

  __device__ __forceinline__ void start(const FetchedQueries& q) {
#pragma unroll
    for (int h = 0; h < 2; h++) scale[h] = q.scale[h], largest[h] = -kInfinity, total[h] = 0.f;
  }

  __device__ __forceinline__ static float4 load(uint32_t address) {
    const uint4 v = ptx::loadShared16(address);
    return make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w));
  }
  /// Calls use(i, y, weights) for the scores of tokens 8i … 8i + 15: four of a row, [i][e], of each row. y(s) is computed unless `ready`.
  template <bool kReady, class Use>
  __device__ __forceinline__ void each(const float (&s)[kScores], const Use& use) const {
#pragma unroll
    for (int i = 0; i < kKeys / 8; i += 2) {
      const float4 w = load(columns + offsetof(Columns, weight) + i / 2 * 64);
      const float4 z = C::kAsymmetric && !kReady ? load(columns + offsetof(Columns, zero) + i / 2 * 64) : float4{};
      const float weights[4] = {w.x, w.y, w.z, w.w}, zeros[4] = {z.x, z.y, z.z, z.w};
      float y[2][4];
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const float4 c = kReady ? float4{} : load(columns + (i + k) * 64);
#pragma unroll
        for (int e = 0; e < 2; e++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float v = s[4 * (i + k) + 2 * h + e];
            if constexpr (!kReady) {
              const float shift = e ? c.w : c.z, factor = e ? c.y : c.x;
              if constexpr (C::kAsymmetric)
                v = __fmaf_rn(-zero[h], zeros[2 * k + e], __fmaf_rn(v * scale[h], factor, shift));
              else
                v = __fmaf_rn(__fmaf_rn(v, scale[h], -zero[h]), factor, shift);
            }
            y[h][2 * k + e] = v;
          }
      }
      use(i, y, weights);
    }
  }
  __device__ __forceinline__ static void largestOf(const float (&y)[2][4], float (&most)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) most[h] = fmaxf(fmaxf(fmaxf(most[h], y[h][0]), fmaxf(y[h][1], y[h][2])), y[h][3]);
  }
  /// Probabilities of 16 tokens, as operands; their sums too.
  __device__ __forceinline__ static void exponentiate(int i, const float (&y)[2][4], const float (&weights)[4], const float (&b)[2], float (&sum)[2],
                                                      uint32_t (&p)[4][4]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float v[4];
#pragma unroll
      for (int k = 0; k < 4; k++) v[k] = exp2Fast(y[h][k] - b[h]), sum[h] = __fmaf_rn(v[k], weights[k], sum[h]);
      p[i / 4][i % 4 + h] = packE4m3(v[0], v[2], v[1], v[3]);
    }
  }
  /// Raises m to the largest so far; shrink: what it does to earlier sums.
  __device__ __forceinline__ void raise(const float (&most)[2]) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float now = fmaxf(largest[h], overQuad(most[h]));
      shrink[h] = now == largest[h] ? 1.f : exp2Fast(largest[h] - now);
      largest[h] = now, total[h] *= shrink[h];
    }
  }
  __device__ __forceinline__ void base(float (&b)[2]) const {
#pragma unroll
    for (int h = 0; h < 2; h++) b[h] = largest[h] == -kInfinity ? 0.f : largest[h] - C::kLog2Most;
  }

  /// Scores → probabilities as operands of four steps of 32 tokens. → whether earlier sums are to be shrunk (the whole warp alike).
  __device__ __forceinline__ bool run(float (&s)[kScores], uint32_t (&p)[4][4]) {
    if constexpr (C::kSpeculative) return speculate(s, p);
    float most[2] = {-kInfinity, -kInfinity}, b[2];
    each<false>(s, [&](int i, const float (&y)[2][4], const float (&)[4]) {
      largestOf(y, most);
#pragma unroll
      for (int j = 0; j < 8; j++) s[4 * i + j] = y[j / 2 % 2][j / 4 * 2 + j % 2];
    });
    const bool higher = __any_sync(~0u, most[0] > largest[0] || most[1] > largest[1]);
    if (higher) raise(most);
    base(b);
    each<true>(s, [&](int i, const float (&y)[2][4], const float (&weights)[4]) { exponentiate(i, y, weights, b, total, p); });
    return higher;
  }

  __device__ __forceinline__ bool speculate(const float (&s)[kScores], uint32_t (&p)[4][4]) {
    bool raised = false, wrong = __any_sync(~0u, largest[0] == -kInfinity || largest[1] == -kInfinity);
#pragma unroll 1
    for (;;) {
      if (wrong) {
        float most[2] = {-kInfinity, -kInfinity};
        each<false>(s, [&](int, const float (&y)[2][4], const float (&)[4]) { largestOf(y, most); });
        raise(most);
        raised = true;
      }
      float b[2], sum[2] = {};
      uint32_t highest = 0;
      base(b);
      each<false>(s, [&](int i, const float (&y)[2][4], const float (&weights)[4]) {
        exponentiate(i, y, weights, b, sum, p);
        highest |= p[i / 4][i % 4] + 0x02020202u | p[i / 4][i % 4 + 1] + 0x02020202u;  // of 448 (and NaN) it sets the highest bit
      });
      wrong = !raised && __any_sync(~0u, highest & 0x80808080u);
      if (!wrong) {
        total[0] += sum[0], total[1] += sum[1];
        return raised;
      }
    }
  }
};

/// −∞ for tokens that a row doesn't see. first: tokens from the tile's start on that the lane's first row sees, less its 2 (lane % 4).
__device__ __forceinline__ void mask(float (&s)[kScores], int first) {
#pragma unroll
  for (int j = 0; j < kScores; j++)
    if (8 * (j / 4) + j % 2 >= first + j / 2 % 2 * 8) s[j] = -kInfinity;
}

/// BF16 rows of 128 channels from the accumulator: lanes of a quad swap, so that each writes 16 bytes.
__device__ __forceinline__ void storeRow(const float (&o)[kScores], int h, float factor, uint16_t* row) {
  const int t = threadIdx.x % 4;
  const bool odd = t & 1, upper = t & 2;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = ptx::packBf16(o[16 * k + 4 * i + 2 * h] * factor, o[16 * k + 4 * i + 2 * h + 1] * factor);
    const uint32_t low = upper ? w[2] : w[0], high = upper ? w[3] : w[1];
    const uint32_t far[2] = {__shfl_xor_sync(~0u, upper ? w[0] : w[2], 2), __shfl_xor_sync(~0u, upper ? w[1] : w[3], 2)};
    const uint32_t mine = odd ? high : low, other = odd ? far[1] : far[0];
    const uint32_t near = __shfl_xor_sync(~0u, odd ? low : high, 1), across = __shfl_xor_sync(~0u, odd ? far[0] : far[1], 1);
    // Of lanes t, t ^ 1, t ^ 2, t ^ 3.
    const uint32_t a = odd ? near : mine, b = odd ? mine : near, c = odd ? across : other, d = odd ? other : across;
    const uint4 v = upper ? make_uint4(c, d, a, b) : make_uint4(a, b, c, d);
    if (row != nullptr) *reinterpret_cast<uint4*>(row + (4 * k + t) * 8) = v;
  }
}

/// A warpgroup that multiplies.
template <class C>
__device__ __forceinline__ void attendTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const int group = threadIdx.x / 128, lane = threadIdx.x % 32, row = threadIdx.x % 128 / 32 * 16 + lane / 4 + group * C::kRows;
  const uint32_t keysFull = ptx::smemAddress(shared.keysFull), keysEmpty = ptx::smemAddress(shared.keysEmpty);
  const uint32_t valuesFull = ptx::smemAddress(shared.valuesFull), valuesEmpty = ptx::smemAddress(shared.valuesEmpty);
  const uint32_t keys = wgmma::descriptorLow(ptx::smemAddress(shared.keys)), values = wgmma::descriptorLow(ptx::smemAddress(shared.values));
  constexpr uint32_t kTile = kKeys * kHeadDim / 16;
  Ring<C::kStages> keyRing, valueRing;
  Softmax<C> softmax;
  uint32_t q[4][4], probabilities[4][4], next[4][4];
  float s[kScores], o[kScores];
  FetchedQueries fetched;

  const auto myTurn = [&] {
    if constexpr (C::kOverlap == Overlap::kAlternate) ptx::syncNamed(2 + group, 256);
  };
  const auto yourTurn = [&] {
    if constexpr (C::kOverlap == Overlap::kAlternate) arriveNamed(2 + (group ^ 1), 256);
  };
  // All that the products take is in its registers before the first one begins.
  const auto begin = [&] {
    wgmma::pin(s);
    wgmma::pin(o);
#pragma unroll
    for (int step = 0; step < 4; step++) wgmma::pin(q[step]), wgmma::pin(probabilities[step]);
    wgmma::fence();
  };
  const auto waitForKeys = [&] { ptx::barrierWait(keysFull + keyRing.stage * 8, keyRing.parity); };
  const auto waitForValues = [&] { ptx::barrierWait(valuesFull + valueRing.stage * 8, valueRing.parity); };
  const auto multiplyKeys = [&] {
#pragma unroll
    for (int step = 0; step < 4; step++) wgmma::Wgmma<kKeys>::e4m3(s, q[step], wgmma::descriptor(keys + keyRing.stage * kTile + 2 * step), step > 0);
    wgmma::commit();
  };
  const auto multiplyValues = [&] {
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<kHeadDim>::e4m3(o, probabilities[step], wgmma::descriptor(values + valueRing.stage * kTile + 2 * step), 1);
    wgmma::commit();
  };
  const auto releaseKeys = [&] {
    wgmma::pin(s);
    softmax.columns = ptx::smemAddress(&shared.columns[keyRing.parity][keyRing.stage]) + lane % 4 * 16;
    if (lane == 0) ptx::barrierArrive(keysEmpty + keyRing.stage * 8);
    keyRing.advance();
  };
  const auto releaseValues = [&] {
    wgmma::wait<0>();
    wgmma::pin(o);
    if (lane == 0) ptx::barrierArrive(valuesEmpty + valueRing.stage * 8);
    valueRing.advance();
  };
  const auto shrink = [&] {
#pragma unroll
    for (int j = 0; j < kScores; j++) o[j] *= softmax.shrink[j / 2 % 2];
  };
  /// Of s, a tile whose first token is `position`.
  const auto round = [&](int position, int visible) {
    if (position + kKeys > visible + group * C::kRows) mask(s, visible + row - position - lane % 4 * 2);
    return softmax.run(s, next);
  };
  // Operands of a product must not be written while another one runs, or ptxas lets each product wait for the one before. It looks
  // through a copy, but not through this.
  const uint32_t nothing = p.tileCount < 0;
  const auto take = [&] {
#pragma unroll
    for (int i = 0; i < 16; i++) asm volatile("xor.b32 %0, %1, %2;" : "=r"(probabilities[i / 4][i % 4]) : "r"(next[i / 4][i % 4]), "r"(nothing));
  };

  Walk<true> walk(p);
  if (!walk.done()) fetched.fetch(p, walk.tile, row);
  if (group == 1) yourTurn();
  for (; !walk.done(); walk.next()) {
    const int4 work = walk.tile;
    int position = (walk.keyTiles() - 1) * kKeys;
    fetched.arrange(q);
    softmax.start(fetched);
#pragma unroll
    for (int j = 0; j < kScores; j++) o[j] = 0.f;
    float sums[4];
    waitForKeys();
    myTurn();
    wgmma::pin(sums);
    begin();
    multiplyKeys();
#pragma unroll
    for (int step = 0; step < 4; step++)
      wgmma::Wgmma<8>::e4m3(sums, q[step], wgmma::descriptor(wgmma::descriptorLow(ptx::smemAddress(shared.ones)) + 2 * step), step > 0);
    wgmma::commit();
    yourTurn();
    wgmma::wait<0>();
    wgmma::pin(sums);
    releaseKeys();
    softmax.zero[0] = sums[0] * softmax.scale[0], softmax.zero[1] = sums[2] * softmax.scale[1];
    round(position, work.w);
    take();
#pragma unroll 1
    for (position -= kKeys; position >= 0; position -= kKeys) {
      waitForKeys();
      waitForValues();
      myTurn();
      if constexpr (C::kOverlap == Overlap::kNone) {
        begin();
        multiplyValues();
        releaseValues();
        begin();
        multiplyKeys();
        wgmma::wait<0>();
        releaseKeys();
        if (round(position, work.w)) shrink();
      } else {
        begin();
        multiplyKeys();
        multiplyValues();
        yourTurn();
        wgmma::wait<1>();
        releaseKeys();
        const bool shrinks = round(position, work.w);
        releaseValues();
        if (shrinks) shrink();
      }
      take();
    }
    waitForValues();
    begin();
    multiplyValues();
    // The next tile's queries come while this one ends.
    if (walk.exists(walk.step + 1)) fetched.fetch(p, walk.upcoming, row);
    releaseValues();
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float total = sumOverQuad(softmax.total[h]);
      uint16_t* const to = p.out + (work.y + static_cast<size_t>(row + 8 * h) * p.queryHeads) * kHeadDim;
      storeRow(o, h, total == 0.f ? 0.f : __fdividef(1 / kUnit, total), row + 8 * h < work.z ? to : nullptr);
    }
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
  if (threadIdx.x == 0) {
    const auto init = [](uint64_t* barriers, int count, int arrivals) {
      for (int i = 0; i < count; i++) ptx::barrierInit(ptx::smemAddress(barriers + i), arrivals);
    };
    init(shared.rawFull, kRawStages, kTilePages), init(shared.rawEmpty, kRawStages, 4);
    init(shared.keysFull, C::kStages, 4), init(shared.keysEmpty, C::kStages, C::kWarpgroups * 4);
    init(shared.valuesFull, C::kStages, 4), init(shared.valuesEmpty, C::kStages, C::kWarpgroups * 4);
    ptx::barrierInitFence();
  }
  // Σq in units of a code, eight times that if all zero points are 8.
  if (threadIdx.x < sizeof(shared.ones) / 4) reinterpret_cast<uint32_t*>(shared.ones)[threadIdx.x] = C::kAsymmetric ? 0x01010101u : 0x08080808u;
  ptx::fenceAsyncShared();
  __syncthreads();
  ptx::waitForPrevious();
  // The three warpgroups share the 3 · 168 registers a thread of the launch.
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<56>();
    loadTiles<C>(p, shared);
  } else {
    ptx::growRegisters<224>();
    attendTiles<C>(p, shared);
  }
}

}  // namespace fireq
