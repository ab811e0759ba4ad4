// The E4M3 products of kernels/cuda/wgmma.cuh on the host. One is carried out when it is waited for, and reads its operands then: who
// overwrites them before, or looks at its result, shows.
#pragma once
#include <deque>
#include <functional>

#include "ptx.cuh"

namespace fireq::wgmma {

/// A thread's products, group after group.
using Groups = std::deque<std::vector<std::function<void()>>>;
inline std::vector<Groups> pending;                // by thread
inline std::vector<emulation::Meeting> warpgroups;

/// Before a block of so many threads.
inline void startBlock(int threads) {
  pending.assign(threads, Groups(1));
  warpgroups.assign(threads / 128, emulation::Meeting(128));
}

inline void fence() {}
inline void commit() { pending[emulation::current->index].emplace_back(); }
template <int kPending>
void wait() {
  Groups& groups = pending[emulation::current->index];
  while (groups.size() > kPending + 1) {
    for (const auto& product : groups.front()) product();
    groups.pop_front();
  }
}
template <class T>
void pin(T&) {}
template <class T>
void pinValues(T&) {}

inline uint32_t descriptorLow(uint32_t address) { return address >> 4 | 1u << 16; }
inline uint64_t descriptor(uint32_t low) { return low; }

/// A thread has rows g and g + 8 of its warp's 16, and columns 8i + 2l and one more: take(2i + h, e, sum).
template <int kWidth, class Take>
void multiply(const uint32_t* a, uint32_t tile, const Take& take) {
  const int thread = emulation::current->index, warp = thread % 128 / 32, g = thread % 32 / 4, l = thread % 4;
  const auto words = emulation::meet(warpgroups[thread / 128], thread % 128, {a[0], a[1], a[2], a[3]});
  static const std::vector<float> numbers = [] {
    std::vector<float> all(256);
    for (int i = 0; i < 256; i++) all[i] = ptx::e4m3ToFloat(static_cast<uint8_t>(i));
    return all;
  }();
  for (int column = 0; column < kWidth / 4; column++) {
    const int n = column / 2 * 8 + 2 * l + column % 2;
    double sums[2] = {};
    for (int k = 0; k < 32; k++) {
      const uint32_t at = tile + n * 128 + k, swizzled = at ^ (at >> 7 & 7) << 4;
      for (int h = 0; h < 2; h++) {
        const uint32_t word = words[warp * 32 + g * 4 + k % 16 / 4][k / 16 * 2 + h];
        sums[h] += static_cast<double>(numbers[word >> k % 4 * 8 & 255]) * numbers[memory[swizzled]];
      }
    }
    for (int h = 0; h < 2; h++) take(column / 2 * 2 + h, column % 2, sums[h]);
  }
}

template <int kWidth>
struct Wgmma {
  static void e4m3(float (&d)[kWidth / 2], const uint32_t* a, uint64_t b, int accumulate) {
    const uint32_t tile = static_cast<uint32_t>(b & 0x3fff) << 4;
    pending[emulation::current->index].back().push_back([&d, a, tile, accumulate] {
      multiply<kWidth>(a, tile, [&](int at, int e, double sum) {
        float& v = d[2 * at + e];
        v = static_cast<float>((accumulate ? v : 0.) + sum);
      });
    });
  }
};

inline void e4m3ToHalves(uint32_t (&d)[32], const uint32_t* a, uint64_t b, int accumulate) {
  const uint32_t tile = static_cast<uint32_t>(b & 0x3fff) << 4;
  pending[emulation::current->index].back().push_back([&d, a, tile, accumulate] {
    multiply<128>(a, tile, [&](int at, int e, double sum) {
      const auto half = static_cast<uint16_t>(d[at] >> 16 * e);
      const uint32_t v = ptx::floatToHalf(static_cast<float>((accumulate ? ptx::halfToFloat(half) : 0.) + sum));
      d[at] = (d[at] & ~(0xffffu << 16 * e)) | v << 16 * e;
    });
  });
}

}  // namespace fireq::wgmma
