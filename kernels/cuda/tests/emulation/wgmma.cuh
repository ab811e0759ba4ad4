// The products of kernels/cuda/wgmma.cuh on the host. One is carried out when it is waited for, and reads its operands
// then: who overwrites them before, or looks at its result, shows.
#pragma once
#include <type_traits>

#include "ptx.cuh"

namespace fireq::wgmma {

/// Something that a thread does later, with what it needs for that.
struct Product {
  void (*carryOut)(const void* needed);
  alignas(8) uint8_t needed[64];

  template <class Function>
  explicit Product(const Function& f) : carryOut([](const void* needed) { (*static_cast<const Function*>(needed))(); }) {
    static_assert(sizeof(Function) <= sizeof needed && std::is_trivially_copyable_v<Function>);
    std::memcpy(needed, &f, sizeof f);
  }
};
/// In the thread's open group.
void add(const Product& product);
void commit();
/// Carries out the thread's products but for the last groups.
void waitForProducts(size_t groups);
template <int kPending>
void wait() {
  waitForProducts(kPending);
}
/// For races.h: the thread's products that its next wait ends.
ptx::races::Copy products();
/// What a warpgroup's threads bring.
const std::vector<emulation::Words>& meetWarpgroup(const emulation::Words& words);

inline void fence() {}
template <class T>
void pin(T&) {}
template <class T>
void pinValues(T&) {}

inline uint32_t descriptorLow(uint32_t address) { return address >> 4 | 1u << 16; }
inline uint64_t descriptor(uint32_t low) { return low; }

inline float valueOf(const uint8_t* e4m3) { return ptx::e4m3ToFloat(*e4m3); }
inline float valueOf(const uint16_t* bf16) { return __uint_as_float(static_cast<uint32_t>(*bf16) << 16); }

constexpr int kStepBytes = 32;  // of K, in one product
template <class Element>
constexpr int kStep = kStepBytes / sizeof(Element);

/// The rows of a tile in shared memory that this thread's part of a product takes: of every 8 kRun, from the first on.
template <int kRun>
struct SharedRows {
  uint32_t tile;
  int count, first;

  /// Where 16 bytes of the i-th lie.
  ptx::Location chunk(int i, int half) const {
    const uint32_t at = tile + (first + i / kRun * 8 + i % kRun) * 128 + half * 16;
    return ptx::locate(at ^ (at >> 7 & 7) << 4, 16);
  }
  template <class Use>
  void forChunks(const Use& use) const {
    for (int i = 0; i < 2 * count; i++) use(chunk(i / 2, i % 2));
  }
  /// Whether they are sure to be there.
  bool mayRead() const {
    bool may = true;
    forChunks([&](const ptx::Location& l) { may &= ptx::races::mayRead(l.block, l.at, 16, ptx::races::Unit::kEngine); });
    return may;
  }
  void noteReads() const {
    const auto product = products();
    forChunks([&](const ptx::Location& l) { ptx::races::noteRead(product, l.block, l.at, 16, "a product"); });
  }
  template <class Element>
  void take(int i, double (&values)[kStep<Element>]) const {
    for (int half = 0; half < 2; half++) {
      const auto* const elements = reinterpret_cast<const Element*>(chunk(i, half).bytes());
      for (int k = 0; k < kStep<Element> / 2; k++) values[half * kStep<Element> / 2 + k] = valueOf(elements + k);
    }
  }
};

/// A: of the warp's 16 rows this thread's, g and g + 8. In registers a lane has words of others' rows, too.
struct RegisterRows {
  const uint32_t* words;

  bool mayRead() const { return true; }
  void noteReads() const {}
  template <class Element>
  void takeBoth(double (&values)[2][kStep<Element>]) const {
    constexpr int kHalf = kStep<Element> / 2, kPerWord = 4 / sizeof(Element);
    const int thread = emulation::current->number, first = thread % 128 / 32 * 32 + thread % 32 / 4 * 4;
    const auto& all = meetWarpgroup({words[0], words[1], words[2], words[3]});
    for (int h = 0; h < 2; h++)
      for (int k = 0; k < kStep<Element>; k++) {
        const uint32_t& word = all[first + k % kHalf / kPerWord][k / kHalf * 2 + h];
        values[h][k] = valueOf(reinterpret_cast<const Element*>(&word) + k % kPerWord);
      }
  }
};
struct SharedLeftRows : SharedRows<1> {
  template <class Element>
  void takeBoth(double (&values)[2][kStep<Element>]) const {
    emulation::meetWarp({});
    for (int h = 0; h < 2; h++) take<Element>(h, values[h]);
  }
};

inline uint32_t tileOf(uint64_t descriptor) { return static_cast<uint32_t>(descriptor & 0x3fff) << 4; }
inline RegisterRows leftOperand(const uint32_t* a) { return {a}; }
inline SharedLeftRows leftOperand(uint64_t a) {
  return {{tileOf(a), 2, emulation::current->index % 128 / 32 * 16 + emulation::lane() / 4}};
}
/// Columns 8i + 2l and one more of the result.
template <int kWidth>
SharedRows<2> rightOperand(uint64_t b) {
  return {tileOf(b), kWidth / 4, emulation::lane() % 4 * 2};
}

/// A number of each of a thread's two rows.
using BothRows = double __attribute__((vector_size(16)));

/// A thread has rows g and g + 8 of its warp's 16, and columns 8i + 2l and one more: take(2i + h, e, sum).
template <class Element, class Left, class Take>
void multiply(const Left& left, const SharedRows<2>& right, bool there, const Take& take) {
  double a[2][kStep<Element>], b[kStep<Element>];
  left.template takeBoth<Element>(a);
  BothRows both[kStep<Element>];
  for (int k = 0; k < kStep<Element>; k++) both[k] = BothRows{a[0][k], a[1][k]};
  there = there && left.mayRead() && right.mayRead();
  if (there) left.noteReads(), right.noteReads();
  for (int column = 0; column < right.count; column++) {
    right.template take<Element>(column, b);
    BothRows sums = {there ? 0 : NAN, there ? 0 : NAN};
    for (int k = 0; k < kStep<Element>; k++) sums += both[k] * b[k];
    for (int h = 0; h < 2; h++) take(column / 2 * 2 + h, column % 2, sums[h]);
  }
}

/// A product that reads its operands when it is waited for. If they aren't sure to be there from now to then, it is NaN: kernels may multiply
/// what isn't there, as long as nobody looks at the result.
template <class Element, class Left, class Take>
void enqueue(const Left& left, const SharedRows<2>& right, const Take& take) {
  const bool there = left.mayRead() && right.mayRead();
  add(Product([=] { multiply<Element>(left, right, there, take); }));
}

template <int kWidth>
struct Wgmma {
  /// A: words of the fragment in registers, or a descriptor.
  template <class Element, class A>
  static void of(float (&d)[kWidth / 2], A a, uint64_t b, int accumulate) {
    enqueue<Element>(leftOperand(a), rightOperand<kWidth>(b), [&d, accumulate](int at, int e, double sum) {
      float& v = d[2 * at + e];
      v = static_cast<float>((accumulate ? v : 0.) + sum);
    });
  }
  template <class A>
  static void e4m3(float (&d)[kWidth / 2], A a, uint64_t b, int accumulate) { of<uint8_t>(d, a, b, accumulate); }
  template <class A>
  static void bf16(float (&d)[kWidth / 2], A a, uint64_t b, int accumulate) { of<uint16_t>(d, a, b, accumulate); }
};

inline void e4m3ToHalves(uint32_t (&d)[32], const uint32_t* a, uint64_t b, int accumulate) {
  enqueue<uint8_t>(leftOperand(a), rightOperand<128>(b), [&d, accumulate](int at, int e, double sum) {
    const auto half = static_cast<uint16_t>(d[at] >> 16 * e);
    const uint32_t v = ptx::floatToHalf(static_cast<float>((accumulate ? ptx::halfToFloat(half) : 0.) + sum));
    d[at] = (d[at] & ~(0xffffu << 16 * e)) | v << 16 * e;
  });
}

}  // namespace fireq::wgmma
