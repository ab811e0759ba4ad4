// Packed INT4 weights: layout and decode.
//
// A block is 64 rows (output features) × 128 columns (one group), stored as the A fragment of four wgmma m64nNk32:
// 4096 bytes of codes, then the 64 group scales. Blocks follow each other along K, then along N.
//
// A 32-bit word holds eight codes of one thread: four of row r ("even") and four of row r + 8 ("odd"). Byte b keeps the
// even magnitude in bits 0-2 and the even sign in bit 7, the odd magnitude in bits 4-6; the odd sign of byte b is bit 3
// of byte b + 1 (mod 4). A magnitude in the mantissa bits is the E4M3 subnormal magnitude · 2⁻⁹, so masks decode four
// codes exactly. Without −8 the magnitude is |q|. With −8 a negative code stores |q| − 1 and its sign is added back:
// E4M3 bytes 0x00…0x0f are 0…15 · 2⁻⁹, so 0x88 is −8 · 2⁻⁹.
#pragma once
#include <cstdint>

namespace fireq {

constexpr int kGroupSize = 128;
constexpr int kBlockRows = 64;
constexpr int kBlockCodeBytes = kBlockRows * kGroupSize / 2;
constexpr float kCodeUnit = 512.f;  // a decoded code is q · 2⁻⁹

// The tensor cores keep 13 bits behind the point of a sum and cut the rest off. An accumulator that is rescaled before
// each group has bits to cut at every group; adding at least half of the last kept unit first (and less than one, so that
// a sum with no such bits stays as it is) rounds where they would cut.
constexpr float kRounding = 1.f + 0x1p-14f;

enum class ScaleType { kBf16, kFp32 };
enum class Codes { kSymmetric, kFull };  // −7…7, −8…7

template <ScaleType kScale>
constexpr int kScaleBytes = kScale == ScaleType::kBf16 ? 2 : 4;

template <ScaleType kScale>
constexpr int kBlockBytes = kBlockCodeBytes + kBlockRows * kScaleBytes<kScale>;

template <Codes kCodes>
__device__ __forceinline__ uint32_t decodeMasked(uint32_t word) {
  uint32_t e4m3 = word & 0x87878787u;
  if constexpr (kCodes == Codes::kFull) e4m3 += (word & 0x80808080u) >> 7;
  return e4m3;
}

/// Eight words → the A operands of four wgmma k32 steps.
template <Codes kCodes>
__device__ __forceinline__ void decode(const uint4& low, const uint4& high, uint32_t (&a)[16]) {
  const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 8; i++) {
    a[2 * i] = decodeMasked<kCodes>(words[i]);
    a[2 * i + 1] = decodeMasked<kCodes>(__funnelshift_r(words[i], words[i], 4));
  }
}

}  // namespace fireq
