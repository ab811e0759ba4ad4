// kernels/cuda/int4_bf16.cuh on the host.
#pragma once
#include "ptx.cuh"

namespace fireq {

inline void decodeBf16(const uint4& words, uint32_t (&a)[16]) {
  const uint32_t all[4] = {words.x, words.y, words.z, words.w};
  for (int i = 0; i < 16; i++) {
    const uint32_t nibbles = all[i / 4] >> i % 4 * 4;
    a[i] = ptx::packBf16(static_cast<int>(nibbles & 15) - 8, static_cast<int>(nibbles >> 16 & 15) - 8);
  }
}

}  // namespace fireq
