// The products of kernels/cuda/wgmma.cuh with A in registers, on the host. One is carried out when it is waited for, and reads its operands
// then: who overwrites them before, or looks at its result, shows.
#pragma once
#include <deque>
#include <functional>

#include "ptx.cuh"

namespace fireq::wgmma {

/// A thread's products, group after group; the last one is open.
using Groups = std::deque<std::vector<std::function<void()>>>;
inline std::vector<Groups> pending;     // by thread
inline std::vector<uint32_t> waits;     // the number of a thread's next one
inline std::vector<emulation::Meeting> warpgroups;

inline const bool begins = [] {
  emulation::beforeCluster.push_back([] {
    pending.assign(emulation::clusterBlocks * emulation::blockThreads, Groups(1));
    waits.assign(pending.size(), 1);
    warpgroups.assign(pending.size() / 128, emulation::Meeting(128));
  });
  return true;
}();
inline Groups& mine() { return pending[emulation::current->number]; }

inline void fence() {}
inline void commit() { mine().emplace_back(); }
template <int kPending>
void wait() {
  Groups& groups = mine();
  while (groups.size() > kPending + 1) {
    for (const auto& product : groups.front()) product();
    groups.pop_front();
  }
  emulation::meetWarp({});  // the warp waits together
  ptx::races::end(ptx::races::product(waits[emulation::current->number]++), ptx::races::mine());
}
template <class T>
void pin(T&) {}
template <class T>
void pinValues(T&) {}

inline uint32_t descriptorLow(uint32_t address) { return address >> 4 | 1u << 16; }
inline uint64_t descriptor(uint32_t low) { return low; }

inline float valueOf(const uint8_t* e4m3) { return ptx::e4m3ToFloat(*e4m3); }
inline float valueOf(const uint16_t* bf16) { return __uint_as_float(static_cast<uint32_t>(*bf16) << 16); }

constexpr int kStepBytes = 32;  // of a row of the tile, in one product

/// Where 16 bytes of a row lie.
inline ptx::Location chunk(uint32_t tile, int row, int i) {
  const uint32_t at = tile + row * 128 + i * 16;
  return ptx::locate(at ^ (at >> 7 & 7) << 4, 16);
}
inline int tileRow(int column) { return column / 2 * 8 + emulation::lane() % 4 * 2 + column % 2; }

/// use(block, from, bytes) of what this thread's part of a product reads.
template <int kWidth, class Use>
void forOperand(uint32_t tile, const Use& use) {
  for (int column = 0; column < kWidth / 4; column++)
    for (int i = 0; i < kStepBytes / 16; i++) {
      const ptx::Location l = chunk(tile, tileRow(column), i);
      use(l.block, l.at, 16);
    }
}

/// Whether what this thread's part of a product reads is sure to be there.
template <int kWidth>
bool mayRead(uint32_t tile) {
  bool may = true;
  forOperand<kWidth>(tile, [&](int block, uint32_t from, uint32_t bytes) { may &= ptx::races::mayRead(block, from, bytes, ptx::races::Unit::kEngine); });
  return may;
}

/// A thread has rows g and g + 8 of its warp's 16, and columns 8i + 2l and one more: take(2i + h, e, sum).
template <int kWidth, class Element, class Take>
void multiply(const uint32_t* a, uint32_t tile, bool there, const Take& take) {
  constexpr int kHalf = 16 / sizeof(Element), kPerWord = 4 / sizeof(Element);  // elements of 16 bytes; of a word of A
  const int thread = emulation::current->number, warp = thread % 128 / 32, g = thread % 32 / 4;
  const auto words = emulation::meet(warpgroups[thread / 128], thread % 128, {a[0], a[1], a[2], a[3]}, false);
  if (!there || !mayRead<kWidth>(tile)) {
    for (int i = 0; i < kWidth / 2; i++) take(i / 2, i % 2, NAN);
    return;
  }
  forOperand<kWidth>(tile, [](int block, uint32_t from, uint32_t bytes) {
    ptx::races::access(ptx::races::product(waits[emulation::current->number]), block, from, bytes, false, "a product");
  });
  for (int column = 0; column < kWidth / 4; column++) {
    double sums[2] = {};
    for (int half = 0; half < 2; half++) {
      const auto* const b = reinterpret_cast<const Element*>(chunk(tile, tileRow(column), half).bytes());
      for (int k = 0; k < kHalf; k++)
        for (int h = 0; h < 2; h++) {
          const auto* const from = reinterpret_cast<const Element*>(&words[warp * 32 + g * 4 + k / kPerWord][half * 2 + h]);
          sums[h] += static_cast<double>(valueOf(from + k % kPerWord)) * valueOf(b + k);
        }
    }
    for (int h = 0; h < 2; h++) take(column / 2 * 2 + h, column % 2, sums[h]);
  }
}

/// A product that reads its operands when it is waited for. If they aren't sure to be there from now to then, it is NaN: kernels may multiply
/// what isn't there, as long as nobody looks at the result.
template <int kWidth, class Element, class Take>
void enqueue(const uint32_t* a, uint64_t b, const Take& take) {
  const uint32_t tile = static_cast<uint32_t>(b & 0x3fff) << 4;
  const bool there = mayRead<kWidth>(tile);
  mine().back().push_back([a, tile, take, there] { multiply<kWidth, Element>(a, tile, there, take); });
}

template <int kWidth>
struct Wgmma {
  template <class Element>
  static void of(float (&d)[kWidth / 2], const uint32_t* a, uint64_t b, int accumulate) {
    enqueue<kWidth, Element>(a, b, [&d, accumulate](int at, int e, double sum) {
      float& v = d[2 * at + e];
      v = static_cast<float>((accumulate ? v : 0.) + sum);
    });
  }
  static void e4m3(float (&d)[kWidth / 2], const uint32_t* a, uint64_t b, int accumulate) { of<uint8_t>(d, a, b, accumulate); }
  static void bf16(float (&d)[kWidth / 2], const uint32_t* a, uint64_t b, int accumulate) { of<uint16_t>(d, a, b, accumulate); }
};

inline void e4m3ToHalves(uint32_t (&d)[32], const uint32_t* a, uint64_t b, int accumulate) {
  enqueue<128, uint8_t>(a, b, [&d, accumulate](int at, int e, double sum) {
    const auto half = static_cast<uint16_t>(d[at] >> 16 * e);
    const uint32_t v = ptx::floatToHalf(static_cast<float>((accumulate ? ptx::halfToFloat(half) : 0.) + sum));
    d[at] = (d[at] & ~(0xffffu << 16 * e)) | v << 16 * e;
  });
}

}  // namespace fireq::wgmma
