// Draws one token a row; see packages/kernels/src/ops/sample.ts. In FP64, as there. A NaN counts as −∞.

#include <algorithm>
#include <cmath>

#include "../core/registry.h"
#include "../simd/vec.h"

namespace fireq::FIREQ_ISA {
namespace {

int32_t largest(const float* logits, int64_t count) {
  int32_t best = 0;
  for (int64_t id = 1; id < count; id++) {
    if (logits[id] > logits[best]) best = static_cast<int32_t>(id);
  }
  return best;
}

/// Ids by logit, largest first, put in order only as far as somebody looks.
class Ranking {
  float at(int32_t id) const { return std::isnan(logits_[id]) ? -__builtin_inff() : logits_[id]; }
  auto before() const {
    return [this](int32_t a, int32_t b) {
      const float x = at(a), y = at(b);
      return x > y || (x == y && a < b);
    };
  }

 public:
  Ranking(const float* logits, int32_t* ids, int64_t count, int64_t kept) : logits_(logits), ids_(ids), kept_(kept) {
    for (int64_t i = 0; i < count; i++) ids[i] = static_cast<int32_t>(i);
    if (kept < count) std::nth_element(ids, ids + kept, ids + count, before());
  }
  float logit(int64_t rank) { return at(ids_[sort(rank)]); }
  int32_t id(int64_t rank) { return ids_[sort(rank)]; }

 private:
  int64_t sort(int64_t rank) {
    while (rank >= sorted_) {
      const int64_t end = std::min(kept_, std::max<int64_t>(256, 4 * sorted_));
      if (end < kept_) std::nth_element(ids_ + sorted_, ids_ + end, ids_ + kept_, before());
      std::sort(ids_ + sorted_, ids_ + end, before());
      sorted_ = end;
    }
    return rank;
  }

  const float* logits_;
  int32_t* ids_;
  int64_t kept_;
  int64_t sorted_ = 0;
};

int32_t draw(const float* logits, int64_t vocabSize, int32_t* ids, float temperature, int32_t topK, float topP,
             float uniform) {
  if (temperature == 0) return largest(logits, vocabSize);
  const int64_t kept = topK > 0 && topK < vocabSize ? topK : vocabSize;
  Ranking ranking(logits, ids, vocabSize, kept);
  const float max = ranking.logit(0);
  const auto weight = [&](float logit) {
    return std::exp((static_cast<double>(logit) - static_cast<double>(max)) / static_cast<double>(temperature));
  };
  double total = 0;
  for (int64_t i = 0; i < kept; i++) {
    const float logit = logits[ids[i]];
    if (!std::isnan(logit)) total += weight(logit);
  }
  double mass = total;
  int64_t count = kept;
  if (topP < 1) {
    mass = 0;
    count = 0;
    while (count < kept && (count == 0 || mass < static_cast<double>(topP) * total)) mass += weight(ranking.logit(count++));
  }
  double running = 0;
  for (int64_t i = 0; i < count; i++) {
    running += weight(ranking.logit(i));
    if (running > static_cast<double>(uniform) * mass) return ranking.id(i);
  }
  return ranking.id(count - 1);
}

void sample(OpContext& ctx) {
  const View& logits = ctx.buffer("logits");
  const View& token = ctx.buffer("token");
  for (const char* role : {"temperature", "topK", "topP", "uniform", "token"}) ctx.expect(role, logits.rows, 1);
  if (logits.columns < 1) ctx.fail("expected at least one logit");
  const float* temperature = ctx.buffer("temperature").f32();
  const float* topP = ctx.buffer("topP").f32();
  const float* uniform = ctx.buffer("uniform").f32();
  const int32_t* topK = ctx.buffer("topK").i32();
  auto* rooms = static_cast<int32_t*>(ctx.scratch(ctx.threads() * logits.columns * sizeof(int32_t)));
  ctx.parallelFor(logits.rows, [&](int64_t r, int worker) {
    token.i32()[r] = draw(logits.f32() + r * logits.columns, logits.columns, rooms + worker * logits.columns,
                          temperature[r], topK[r], topP[r], uniform[r]);
  });
}

FIREQ_OP(sample, sample);

}  // namespace
}  // namespace fireq::FIREQ_ISA
