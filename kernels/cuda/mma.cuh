// What mma.sync needs: one warp's product in registers, and its operands from shared memory.
#pragma once
#include <cstdint>

namespace fireq::mma {

/// Four 8 × 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8, and gets elements
/// 2(i % 4), 2(i % 4) + 1 of row i / 4 of each.
__device__ __forceinline__ void loadMatrices(uint32_t (&m)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
               : "r"(address));
}

/// d[16 × 8] += a[16 × 16] · b[8 × 16]ᵀ, BF16 into FP32. d and a are laid out as a warp's part of wgmma's.
__device__ __forceinline__ void bf16(float* d, const uint32_t* a, const uint32_t* b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace fireq::mma
