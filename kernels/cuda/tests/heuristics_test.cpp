// chooseGemm on the host. c++ -std=c++17 -Wall heuristics_test.cpp -o heuristics_test && ./heuristics_test
#include "../heuristics.hpp"

#include <cstdio>
#include <initializer_list>
#include <string>

using namespace fireq;

static int failures = 0;

static void expect(bool holds, const char* what, int m, int n, int k, const GemmChoice& c) {
  if (holds) return;
  failures++;
  std::printf("M=%d N=%d K=%d: expected %s, but chose f%d t%d, split %d, sweep %d\n", m, n, k, what, c.features, c.tokens,
              c.split, c.sweep);
}

/// Is there such a kernel in gemm_small.cu, gemm_medium.cu or gemm_large.cu?
static bool exists(const GemmChoice& c) {
  if (c.family == GemmFamily::kLarge) return c.features == 128 && (c.tokens == 128 || c.tokens == 256);
  if (c.tokens == 64) return c.features == 128 || c.features == 192 || c.features == 256;
  if (c.tokens == 128) return c.features == 128 || c.features == 192 || c.features == 256;
  if (c.features == 192) return c.tokens == 16 || c.tokens == 32;
  return c.features == 128 && (c.tokens == 8 || c.tokens == 16 || c.tokens == 32);
}

int main() {
  for (int n : {16, 128, 1040, 4096, 6144, 12288, 22016, 28672, 57344})
    for (int k : {128, 384, 1024, 4096, 11008, 14336, 28672})
      for (int m : {1, 2, 7, 8, 9, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 255, 256, 511, 1024, 2047, 16384})
        for (int sms : {1, 78, 114, 132}) {
          const GemmChoice c = chooseGemm(m, n, k, sms);
          expect(c.family != GemmFamily::kNone && exists(c), "a kernel that exists", m, n, k, c);
          expect(c.split >= 1 && c.split <= 8 && c.split <= k / 128, "a split of whole groups, at most 8", m, n, k, c);
          expect(c.split == 1 || c.split <= sms, "a cluster that fits the device", m, n, k, c);
          if (c.family == GemmFamily::kLarge) {
            const int tiles = detail::ceilDivide(m, c.tokens) * detail::ceilDivide(n, 2 * c.features);
            expect(c.split == 1 && c.sweep > 0, "no split and a sweep", m, n, k, c);
            expect(c.clusters >= 1 && (c.clusters <= sms / 2 || c.clusters == 1), "clusters that fit the device", m, n, k, c);
            expect(c.cut >= 0 && c.cut <= tiles && (c.cut == 0 || (tiles - c.cut) % c.clusters == 0), "whole rounds beside what is cut", m, n, k, c);
            expect(static_cast<long>(c.cut) * (k / 128) >= c.clusters || c.cut == 0, "a group for every cluster", m, n, k, c);
          }
          if (c.tokens >= 64) expect(c.split <= 6, "a split that the medium kernels take", m, n, k, c);
          if (m <= 32) expect(c.tokens >= m && (c.tokens == 8 || c.tokens < 2 * m), "the least tile with all tokens", m, n, k, c);
        }
  const GemmChoice none = chooseGemm(0, 4096, 4096, 132);
  expect(none.family == GemmFamily::kNone, "nothing", 0, 4096, 4096, none);

  // Measured best on an H200.
  struct {
    int m, n, k, features, tokens, split;
  } const measured[] = {{1, 12288, 4096, 128, 8, 2},     {1, 4096, 4096, 128, 8, 4},      {1, 28672, 4096, 128, 8, 1},
                        {16, 4096, 11008, 128, 16, 6},   {16, 6144, 4096, 128, 16, 4},    {32, 4096, 14336, 128, 32, 6},
                        {64, 12288, 4096, 192, 64, 2},   {64, 4096, 14336, 192, 64, 5},   {64, 22016, 4096, 192, 64, 1},
                        {64, 28672, 4096, 256, 64, 1},   {128, 4096, 4096, 128, 128, 3},  {128, 12288, 4096, 192, 128, 2},
                        {128, 22016, 4096, 192, 128, 1}, {128, 28672, 4096, 256, 128, 1}, {256, 4096, 14336, 128, 128, 2},
                        {256, 12288, 4096, 192, 128, 1}, {512, 4096, 14336, 128, 256, 1}, {1024, 4096, 4096, 128, 256, 1},
                        {16384, 28672, 4096, 128, 256, 1}, {64, 4096, 4096, 192, 64, 4}, {64, 6144, 4096, 128, 64, 4}, {64, 4096, 11008, 192, 64, 5}};
  for (const auto& x : measured) {
    const GemmChoice c = chooseGemm(x.m, x.n, x.k, 132);
    const std::string best = "f" + std::to_string(x.features) + " t" + std::to_string(x.tokens) + ", split " + std::to_string(x.split);
    expect(c.features == x.features && c.tokens == x.tokens && c.split == x.split, best.c_str(), x.m, x.n, x.k, c);
  }
  if (failures == 0) std::puts("chooseGemm: all as expected");
  return failures != 0;
}
