// kernels/cuda/mma.cuh on the host.
#pragma once
#include "ptx.cuh"

namespace fireq::mma {

inline void loadMatrices(uint32_t (&m)[4], uint32_t address) {
  const auto& all = emulation::meetWarp({address});
  for (int i = 0; i < 4; i++) m[i] = ptx::load<uint32_t>(all[8 * i + emulation::lane() / 4][0] + emulation::lane() % 4 * 4, "ldmatrix");
}

inline void bf16(float* d, const uint32_t* a, const uint32_t* b) {
  ptx::multiply<true>(reinterpret_cast<float(&)[4]>(*d), a[0], a[1], a[2], a[3], reinterpret_cast<const uint32_t(&)[2]>(*b));
}

}  // namespace fireq::mma
