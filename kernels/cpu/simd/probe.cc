// What this machine's vectors can do at most: the yardstick of the benchmarks.

#include "../core/registry.h"
#include "vec.h"

namespace fireq::FIREQ_ISA {
namespace {

constexpr int kChains = 10;

/// One step: kChains vectors of multiply-adds, counted as 16-lane ones.
void multiplyAdd(int64_t count) {
  VF sums[kChains] = {};
  const VF a = splat(0.999f), b = splat(0.001f);
  for (int64_t i = 0; i < count * kParts; i++) {
#pragma GCC unroll 10
    for (int c = 0; c < kChains; c++) sums[c] = fma(sums[c], a, b);
  }
  VF total{};
  for (const VF& sum : sums) total += sum;
  asm volatile("" ::"r"(&total) : "memory");
}

void read(const void* from, size_t bytes) {
  const auto* at = static_cast<const char*>(from);
  VU sums[4] = {};
  for (size_t i = 0; i < bytes; i += 4 * sizeof(VU)) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) sums[c] ^= load<VU>(at + i + c * sizeof(VU));
  }
  const VU total = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  asm volatile("" ::"r"(&total) : "memory");
}

FIREQ_PROBE(multiplyAdd, read);

}  // namespace
}  // namespace fireq::FIREQ_ISA
