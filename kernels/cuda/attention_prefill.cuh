// Attention of many new tokens a sequence over a paged INT4 cache that already holds them: out = softmax(q·K)·V, causal, grouped
// queries, q in E4M3 with a scale a token and head. Both products are FP8 wgmma, on tiles that attention_prefill_tiles.cuh has decoded.
//
// A block takes 128 queries of a head: two warpgroups of 64, and a third one that fetches tiles of 128 keys and values. A warpgroup's
// product of probabilities and values runs under the softmax of the next tile; the other warpgroup's products fill the rest.
//
// * Queries stay in registers, in the order of channels in which keys are decoded; probabilities go from the accumulator of q·K to the
//   operand of the second product without leaving their lane.
// * Scores are exponents of two: y = (q·codes − zero · Σq) · qScale · softmaxScale · log₂e · σ[key]. With p = 2^(y − m), p · σ[value] is
//   rounded to E4M3, and O = Σ E4M3(p·σ)·(code − zero) / Σ p.
// * Speculation: m needs only be near a row's largest y + log₂ σ. A tile is rounded with the m at hand, and once more if a probability
//   saturated.
#pragma once
#include <cstdint>

#include "attention_prefill_tiles.cuh"
#include "kv_layout.cuh"
#include "ptx.cuh"
#include "ring.cuh"
#include "wgmma.cuh"

namespace fireq {

struct AttentionPrefillParams {
  const uint8_t* q;        // E4M3 [tokens, queryHeads, 128]
  const float* qScale;     // [tokens, queryHeads]
  const uint8_t* decoded;  // [tiles, keyHeads] DecodedTile: each sequence's tiles follow each other
  // Of each head, up to 128 new tokens of a sequence, those that see most first: the sequence's first tile, the first query's row in q
  // as [tokens · queryHeads, 128], queries, and how many tokens of the sequence the first one sees (the next one sees one more, …).
  const int4* work;
  uint16_t* out;           // BF16 [tokens, queryHeads, 128]
  int workCount, queryHeads, keyHeads;
  float softmaxScale;
};

enum class Overlap {
  kNone,       // a warpgroup's products and softmax follow each other
  kValues,     // the product with values runs under the next tile's softmax
  kAlternate,  // and the warpgroups issue their products in turns
};

template <ScaleFormat kFormat_, int kStages_, Overlap kOverlap_>
struct AttentionPrefillConfig {
  static constexpr ScaleFormat kFormat = kFormat_;
  static constexpr int kStages = kStages_;
  static constexpr Overlap kOverlap = kOverlap_;
  static constexpr int kWarpgroups = 2, kRows = 64;
  static constexpr int kThreads = (kWarpgroups + 1) * 128;
  static constexpr bool kAsymmetric = kFormat == ScaleFormat::kE4m3Asymmetric;
};

namespace prefill {

constexpr float kLog2e = 1.4426950408889634f, kInfinity = __builtin_huge_valf();
constexpr int kScores = kKeys / 2;  // of a lane: [i][row, row + 8][e], token 8i + 2 (lane % 4) + e
// A probability is up to 2⁵ when m is just set; E4M3 reaches 448, so there is 3.75 to grow. Tiles come in order, the whole first one
// tells of every row: with 1.75 (and the diagonal's tile first) two of three warpgroups had to round a tile twice at 1024 tokens.
constexpr float kLog2Most = 5.f;

/// A block's work: back and forth through the grid, so that all blocks get as much. With kAhead the next one is known before it is
/// wanted.
template <bool kAhead>
struct Walk {
  const AttentionPrefillParams& p;
  int step = 0;
  int4 work, upcoming;

  __device__ __forceinline__ explicit Walk(const AttentionPrefillParams& params) : p(params), work(load(0)) {
    if (kAhead) upcoming = load(1);
  }
  __device__ __forceinline__ int index(int at) const { return at * gridDim.x + (at % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x); }
  __device__ __forceinline__ bool exists(int at) const { return index(at) < p.workCount; }
  __device__ __forceinline__ bool done() const { return !exists(step); }
  __device__ __forceinline__ int4 load(int at) const { return exists(at) ? __ldg(p.work + index(at)) : int4{}; }
  __device__ __forceinline__ void next() {
    step++;
    work = kAhead ? upcoming : load(step);
    if (kAhead) upcoming = load(step + 1);
  }
  __device__ __forceinline__ int keyTiles() const { return (work.w + work.z - 1 + kKeys - 1) / kKeys; }  // that the last query sees
};

template <class C>
struct Shared {
  alignas(1024) uint8_t keys[C::kStages][kKeys * kHeadDim];
  alignas(1024) uint8_t values[C::kStages][kKeys * kHeadDim];
  alignas(1024) uint8_t ones[8 * kHeadDim];  // eight rows that sum up a query
  // Scales, and zero points after them; by parity too: a tile of keys is released before its softmax is done.
  alignas(128) uint8_t scales[2][C::kStages][2 * kKeys * 4];
  alignas(8) uint64_t keysFull[C::kStages], keysEmpty[C::kStages], valuesFull[C::kStages], valuesEmpty[C::kStages];
};

/// One thread's part of fetching: keys with their scales, or values.
template <class C, bool kValues>
__device__ __forceinline__ void fetchTiles(const AttentionPrefillParams& p, Shared<C>& shared) {
  const uint32_t full = ptx::smemAddress(kValues ? shared.valuesFull : shared.keysFull);
  const uint32_t empty = ptx::smemAddress(kValues ? shared.valuesEmpty : shared.keysEmpty);
  constexpr uint32_t kTileBytes = kKeys * kHeadDim, kScaleBytes = kKeys * 4 * (C::kAsymmetric ? 2 : 1);
  Ring<C::kStages> ring;
  for (Walk<false> walk(p); !walk.done(); walk.next()) {
    const int keyHead = walk.work.y % p.queryHeads / (p.queryHeads / p.keyHeads);
    const auto* const tiles = reinterpret_cast<const DecodedTile*>(p.decoded) + static_cast<size_t>(walk.work.x) * p.keyHeads + keyHead;
    for (int tile = 0; tile < walk.keyTiles(); tile++, ring.advance()) {
      const DecodedTile& from = tiles[static_cast<size_t>(tile) * p.keyHeads];
      const uint32_t barrier = full + ring.stage * 8;
      ptx::barrierWait(empty + ring.stage * 8, ring.parity ^ 1);
      ptx::barrierArriveExpect(barrier, kValues ? kTileBytes : kTileBytes + kScaleBytes);
      ptx::copyBulk(ptx::smemAddress(kValues ? shared.values[ring.stage] : shared.keys[ring.stage]), kValues ? from.values : from.keys, kTileBytes, barrier);
      if (!kValues) ptx::copyBulk(ptx::smemAddress(shared.scales[ring.parity][ring.stage]), from.scales, kScaleBytes, barrier);
    }
  }
}

}  // namespace prefill

template <class C>
constexpr int kAttentionPrefillSharedBytes = sizeof(prefill::Shared<C>) + 1024;  // the kernel aligns its base

namespace prefill {


/// v, but ptxas doesn't know: it looks through a copy. nothing: 0.
__device__ __forceinline__ uint32_t unseen(uint32_t v, uint32_t nothing) {
  uint32_t same;
  asm volatile("xor.b32 %0, %1, %2;" : "=r"(same) : "r"(v), "r"(nothing));
  return same;
}

/// Registers whose former values nobody wants.
template <int kCount>
__device__ __forceinline__ void anew(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "=f"(d[i])::"memory");
}
template <int kCount>
__device__ __forceinline__ void anew(uint32_t (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i++) asm volatile("" : "=r"(d[i])::"memory");
}

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

  __device__ __forceinline__ void fetch(const AttentionPrefillParams& p, const int4& work, int row) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const size_t at = work.y + static_cast<size_t>(min(row + 8 * h, work.z - 1)) * p.queryHeads;
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
  float scale[2], zero[2];   // on q·codes, to base-2 exponents; Σq times that, times the zero point if it is one for all
  float base[2], total[2], shrink[2];  // m − kLog2Most
  uint32_t scales;           // of this lane's tokens, in shared memory
  uint32_t nothing;          // 0

  __device__ __forceinline__ void start(const FetchedQueries& q, float softmaxScale) {
#pragma unroll
    for (int h = 0; h < 2; h++) scale[h] = q.scale[h] * (softmaxScale * kLog2e / kUnit), base[h] = -kInfinity, total[h] = 0.f;
  }

  /// Calls use(i, x, σ of the keys, σ of the values) for tokens 8i … 8i + 15: x[row][i, e] · σ of the key is y. kScaled: s is x already.
  template <bool kScaled, class Use>
  __device__ __forceinline__ void each(const float (&s)[kScores], const Use& use) const {
#pragma unroll
    for (int i = 0; i < kKeys / 8; i += 2) {
      const uint4 words = ptx::loadShared16(scales + i / 2 * 64);
      const uint4 zeros = C::kAsymmetric && !kScaled ? ptx::loadShared16(scales + kKeys * 4 + i / 2 * 64) : uint4{};
      const uint32_t w[4] = {words.x, words.y, words.z, words.w}, z[4] = {zeros.x, zeros.y, zeros.z, zeros.w};
      float x[2][4], key[4], value[4];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        key[k] = __uint_as_float(w[k] << 16), value[k] = __uint_as_float(w[k] & 0xffff0000u);
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const float v = s[4 * (i + k / 2) + 2 * h + k % 2];
          if constexpr (kScaled)
            x[h][k] = v;
          else
            x[h][k] = C::kAsymmetric ? __fmaf_rn(-zero[h], __uint_as_float(z[k]), v * scale[h]) : __fmaf_rn(v, scale[h], -zero[h]);
        }
      }
      use(i, x, key, value);
    }
  }

  /// Sets m to the largest so far, and leaves x in s. shrink: what it does to earlier sums.
  __device__ __forceinline__ void raise(float (&s)[kScores]) {
    float most[2] = {-kInfinity, -kInfinity};
    each<false>(s, [&](int i, const float (&x)[2][4], const float (&key)[4], const float (&value)[4]) {
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const float shift = ptx::log2FastFtz(value[k]) - kLog2Most;
#pragma unroll
        for (int h = 0; h < 2; h++) {
          most[h] = fmaxf(most[h], __fmaf_rn(x[h][k], key[k], shift));
          s[4 * (i + k / 2) + 2 * h + k % 2] = x[h][k];
        }
      }
    });
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float now = fmaxf(base[h], overQuad(most[h]));
      shrink[h] = now == base[h] ? 1.f : ptx::exp2Fast(base[h] - now);
      base[h] = now, total[h] *= shrink[h];
    }
  }

  /// → not zero if a probability saturated (or is NaN). sum: Σ p.
  template <bool kScaled>
  __device__ __forceinline__ uint32_t exponentiate(const float (&s)[kScores], uint32_t (&p)[4][4], float (&sum)[2]) const {
    uint32_t highest = 0;
    each<kScaled>(s, [&](int i, const float (&x)[2][4], const float (&key)[4], const float (&value)[4]) {
#pragma unroll
      for (int h = 0; h < 2; h++) {
        float v[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
          const float probability = ptx::exp2Fast(__fmaf_rn(x[h][k], key[k], -base[h]));
          sum[h] += probability, v[k] = probability * value[k];
        }
        uint32_t& word = p[i / 4][i % 4 + h];
        word = ptx::packE4m3(v[0], v[2], v[1], v[3]);
        highest |= word + 0x02020202u;  // of 448 (and NaN) it sets the highest bit
      }
    });
    return highest & 0x80808080u;
  }

  /// Or else ptxas keeps in registers what it has loaded and computed, for the rare case that it is wanted again.
  __device__ __forceinline__ void forget() {
    scales = unseen(scales, nothing);
#pragma unroll
    for (int h = 0; h < 2; h++) scale[h] = __uint_as_float(unseen(__float_as_uint(scale[h]), nothing));
  }

  /// Scores → probabilities as operands of four steps of 32 tokens, m and the sums along with them.
  __device__ __forceinline__ void begin(float (&s)[kScores], uint32_t (&p)[4][4]) {
    float sum[2] = {};
    raise(s);
    forget();
    exponentiate<true>(s, p, sum);
    total[0] += sum[0], total[1] += sum[1];
  }
  /// The same of a tile that isn't the first. → whether earlier sums are to be shrunk (the whole warp alike).
  __device__ __forceinline__ bool go(float (&s)[kScores], uint32_t (&p)[4][4]) {
    float sum[2] = {};
    const bool wrong = __any_sync(~0u, exponentiate<false>(s, p, sum));
    if (wrong) {
      forget();
      begin(s, p);
    } else {
      total[0] += sum[0], total[1] += sum[1];
    }
    return wrong;
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
    if constexpr (C::kOverlap == Overlap::kAlternate) ptx::arriveNamed(2 + (group ^ 1), 256);
  };
  // All that the products take is in its registers before the first one begins.
  const auto begin = [&] {
    anew(s);
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
    softmax.scales = ptx::smemAddress(shared.scales[keyRing.parity][keyRing.stage]) + lane % 4 * 16;
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
  /// What s must not see of the tile whose first token is `position`.
  const auto hide = [&](int position, int visible) {
    if (position + kKeys > visible + group * C::kRows) mask(s, visible + row - position - lane % 4 * 2);
  };
  // Operands of a product must not be written while another one runs, or ptxas lets each product wait for the one before.
  softmax.nothing = p.workCount < 0;
  const auto take = [&] {
#pragma unroll
    for (int i = 0; i < 16; i++) probabilities[i / 4][i % 4] = unseen(next[i / 4][i % 4], softmax.nothing);
  };

  Walk<true> walk(p);
  if (!walk.done()) fetched.fetch(p, walk.work, row);
  if (group == 1) yourTurn();
  for (; !walk.done(); walk.next()) {
    const int4 work = walk.work;
    const int end = walk.keyTiles() * kKeys;
    fetched.arrange(q);
    softmax.start(fetched, p.softmaxScale);
#pragma unroll
    for (int j = 0; j < kScores; j++) o[j] = 0.f;
    float sums[4];
    waitForKeys();
    myTurn();
    anew(sums);
#pragma unroll
    for (int step = 0; step < 4; step++) anew(probabilities[step]);
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
    hide(0, work.w);
    softmax.begin(s, next);
    take();
#pragma unroll 1
    for (int position = kKeys; position < end; position += kKeys) {
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
        hide(position, work.w);
        if (softmax.go(s, next)) shrink();
      } else {
        begin();
        multiplyKeys();
        multiplyValues();
        yourTurn();
        wgmma::wait<1>();
        releaseKeys();
        hide(position, work.w);
        const bool shrinks = softmax.go(s, next);
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
    init(shared.keysFull, C::kStages, 1), init(shared.keysEmpty, C::kStages, C::kWarpgroups * 4);
    init(shared.valuesFull, C::kStages, 1), init(shared.valuesEmpty, C::kStages, C::kWarpgroups * 4);
    ptx::barrierInitFence();
  }
  // Σq in units of a code, eight times that if all zero points are 8.
  if (threadIdx.x < sizeof(shared.ones) / 4) reinterpret_cast<uint32_t*>(shared.ones)[threadIdx.x] = C::kAsymmetric ? 0x01010101u : 0x08080808u;
  ptx::fenceAsyncShared();
  __syncthreads();
  ptx::waitForPrevious();
  // The three warpgroups share the 3 · 168 registers a thread of the launch.
  if (threadIdx.x >= C::kWarpgroups * 128) {
    ptx::shrinkRegisters<40>();
    // A copy costs its thread some 150 cycles: keys and values have one each.
    const int thread = threadIdx.x - C::kWarpgroups * 128;
    if (thread == 0) fetchTiles<C, false>(p, shared);
    if (thread == 32) fetchTiles<C, true>(p, shared);
  } else {
    ptx::growRegisters<232>();
    attendTiles<C>(p, shared);
  }
}

}  // namespace fireq
