#pragma once

// The vectors that all kernels are written in: kWidth lanes of GCC/Clang vector extensions, and the few operations the
// extensions lack. Each kernel source is compiled once per instruction set, into a namespace of its own, with
//   FIREQ_ISA        Plain, Avx2, Avx512 or Avx512Emulated: both the namespace and the enumerator in core/registry.h
//   FIREQ_WIDTH      lanes
// Avx512Emulated has 16 lanes and AVX2 instructions: the AVX-512 source, testable without such a machine.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fireq::FIREQ_ISA {

constexpr int kWidth = FIREQ_WIDTH;

template <int N>
struct VectorOf {
  typedef float F __attribute__((vector_size(N * 4)));
  typedef int32_t I __attribute__((vector_size(N * 4)));
  typedef uint32_t U __attribute__((vector_size(N * 4)));
  typedef uint16_t H __attribute__((vector_size(N * 2)));
  typedef uint8_t B __attribute__((vector_size(N)));
};
using VF = VectorOf<kWidth>::F;
using VI = VectorOf<kWidth>::I;
using VU = VectorOf<kWidth>::U;
using VH = VectorOf<kWidth>::H;
using VB = VectorOf<kWidth>::B;

#define FIREQ_INLINE [[gnu::always_inline]] inline

template <class V>
FIREQ_INLINE V load(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class V>
FIREQ_INLINE void store(void* to, V v) {
  std::memcpy(to, &v, sizeof v);
}
FIREQ_INLINE VF splat(float x) { return x - VF{}; }  // x − 0 is x, −0 too; x + 0 isn't
FIREQ_INLINE VU splatU(uint32_t x) { return VU{} + x; }
FIREQ_INLINE VF asF(VU v) { return reinterpret_cast<VF>(v); }
FIREQ_INLINE VU asU(VF v) { return reinterpret_cast<VU>(v); }
FIREQ_INLINE VU asU(VI v) { return reinterpret_cast<VU>(v); }
FIREQ_INLINE VI asI(VU v) { return reinterpret_cast<VI>(v); }
/// Whole numbers below 2³¹ to FP32.
FIREQ_INLINE VF toF(VU v) { return __builtin_convertvector(asI(v), VF); }
FIREQ_INLINE VF select(VI mask, VF yes, VF no) { return mask ? yes : no; }
FIREQ_INLINE VF abs(VF v) { return asF(asU(v) & 0x7fffffffu); }

// a·b + c in one rounding where there is an instruction for it; the larger (smaller) of two, `b` if either is NaN.
#if defined(__AVX512F__)
FIREQ_INLINE VF fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
FIREQ_INLINE VF max(VF a, VF b) { return _mm512_max_ps(a, b); }
FIREQ_INLINE VF min(VF a, VF b) { return _mm512_min_ps(a, b); }
#elif defined(__AVX2__) && FIREQ_WIDTH == 8
FIREQ_INLINE VF fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
FIREQ_INLINE VF max(VF a, VF b) { return _mm256_max_ps(a, b); }
FIREQ_INLINE VF min(VF a, VF b) { return _mm256_min_ps(a, b); }
#elif defined(__AVX2__)
struct Halves {
  __m256 low, high;
};
FIREQ_INLINE Halves split(VF v) { return load<Halves>(&v); }
FIREQ_INLINE VF join(__m256 low, __m256 high) {
  const Halves halves{low, high};
  return load<VF>(&halves);
}
FIREQ_INLINE VF fma(VF a, VF b, VF c) {
  const Halves x = split(a), y = split(b), z = split(c);
  return join(_mm256_fmadd_ps(x.low, y.low, z.low), _mm256_fmadd_ps(x.high, y.high, z.high));
}
FIREQ_INLINE VF max(VF a, VF b) { return select(a > b, a, b); }
FIREQ_INLINE VF min(VF a, VF b) { return select(a < b, a, b); }
#else
FIREQ_INLINE VF fma(VF a, VF b, VF c) { return a * b + c; }
FIREQ_INLINE VF max(VF a, VF b) { return select(a > b, a, b); }
FIREQ_INLINE VF min(VF a, VF b) { return select(a < b, a, b); }
#endif

// The low byte (half) of every lane, to memory. GCC 12 makes a conversion of vectors one lane at a time.
#if defined(__AVX512BW__)
FIREQ_INLINE void storeBytes(void* to, VU v) { _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)v)); }
FIREQ_INLINE void storeHalves(void* to, VU v) { _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16((__m512i)v)); }
#elif defined(__AVX2__)
FIREQ_INLINE void storeBytes(void* to, VU v) {
  const __m128i lowest = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
  for (int i = 0; i < kWidth; i += 4) {
    const __m128i four = load<__m128i>(reinterpret_cast<const char*>(&v) + i * 4);
    _mm_storeu_si32(static_cast<char*>(to) + i, _mm_shuffle_epi8(four, lowest));
  }
}
FIREQ_INLINE void storeHalves(void* to, VU v) {
  const __m128i lowest = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
  for (int i = 0; i < kWidth; i += 4) {
    const __m128i four = load<__m128i>(reinterpret_cast<const char*>(&v) + i * 4);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<char*>(to) + i * 2), _mm_shuffle_epi8(four, lowest));
  }
}
#else
FIREQ_INLINE void storeBytes(void* to, VU v) { store(to, __builtin_convertvector(v, VB)); }
FIREQ_INLINE void storeHalves(void* to, VU v) { store(to, __builtin_convertvector(v, VH)); }
#endif

// Bytes times bytes: a lane of VU holds four bytes or two 16-bit numbers.
//  dotBytes: unsigned bytes of a by signed ones of b, neighbouring products added to 16 bits
//  dotHalves: 16-bit numbers of a by b, the two products of a lane added
//  addHalves: 16-bit additions
#if defined(__AVX2__)
#define FIREQ_BYTE_DOT 1
#if defined(__AVX512BW__)
FIREQ_INLINE VU dotBytes(VU a, VU b) { return reinterpret_cast<VU>(_mm512_maddubs_epi16((__m512i)a, (__m512i)b)); }
FIREQ_INLINE VU dotHalves(VU a, VU b) { return reinterpret_cast<VU>(_mm512_madd_epi16((__m512i)a, (__m512i)b)); }
#elif FIREQ_WIDTH == 8
FIREQ_INLINE VU dotBytes(VU a, VU b) { return reinterpret_cast<VU>(_mm256_maddubs_epi16((__m256i)a, (__m256i)b)); }
FIREQ_INLINE VU dotHalves(VU a, VU b) { return reinterpret_cast<VU>(_mm256_madd_epi16((__m256i)a, (__m256i)b)); }
#else
struct IntHalves {
  __m256i low, high;
};
FIREQ_INLINE VU dotBytes(VU a, VU b) {
  const auto x = load<IntHalves>(&a), y = load<IntHalves>(&b);
  const IntHalves result{_mm256_maddubs_epi16(x.low, y.low), _mm256_maddubs_epi16(x.high, y.high)};
  return load<VU>(&result);
}
FIREQ_INLINE VU dotHalves(VU a, VU b) {
  const auto x = load<IntHalves>(&a), y = load<IntHalves>(&b);
  const IntHalves result{_mm256_madd_epi16(x.low, y.low), _mm256_madd_epi16(x.high, y.high)};
  return load<VU>(&result);
}
#endif
FIREQ_INLINE VU addHalves(VU a, VU b) {
  typedef uint16_t Pairs __attribute__((vector_size(kWidth * 4)));
  return reinterpret_cast<VU>(reinterpret_cast<Pairs>(a) + reinterpret_cast<Pairs>(b));
}
#else
#define FIREQ_BYTE_DOT 0
#endif

/// 16 consecutive floats, in as many vectors as it takes: the width of a weight's tile, and of every reduction, so that
/// sums don't depend on the instruction set's width.
constexpr int kParts = 16 / kWidth;
struct Row16 {
  VF part[kParts];
};
FIREQ_INLINE Row16 load16(const float* from) {
  Row16 row;
  for (int i = 0; i < kParts; i++) row.part[i] = load<VF>(from + i * kWidth);
  return row;
}
FIREQ_INLINE void store16(float* to, const Row16& row) {
  for (int i = 0; i < kParts; i++) store(to + i * kWidth, row.part[i]);
}
/// Sum of 16 lanes in a fixed order.
FIREQ_INLINE float sum16(const Row16& row) {
  float lane[16];
  store16(lane, row);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) lane[i] += lane[i + half];
  }
  return lane[0];
}
FIREQ_INLINE float max16(const Row16& row) {
  float lane[16];
  store16(lane, row);
  float best = lane[0];
  for (int i = 1; i < 16; i++) best = lane[i] > best ? lane[i] : best;
  return best;
}

}  // namespace fireq::FIREQ_ISA
