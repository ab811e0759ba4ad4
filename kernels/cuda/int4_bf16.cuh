// Packed INT4 weights for BF16 activations: layout and decode.
//
// Blocks are those of int4.cuh (64 rows × 128 columns, 4096 bytes of codes, then the 64 group scales; along K, then along
// N), with the codes as the A fragment of eight wgmma m64nNk16: thread t of the warpgroup has 16 bytes at 16 t, its words
// of the first four steps of K, and 16 bytes at 2048 + 16 t, those of the last four.
//
// A word is one step. Nibble j of its low half is the code at column 16 · step + 2 (lane % 4) + 8 (j / 2), row r + 8 (j % 2)
// with r = 16 · warp + lane / 4; nibble j of its high half the next column's. A nibble is code + 8: behind the exponent of
// 128 in the lowest bits of a BF16's mantissa it makes 128 + nibble, and 136 less is the code, exactly. All of −8…7 cost
// the same.
#pragma once
#include <cstdint>

namespace fireq {

/// A word → the A operand of one k16 step, for wgmma or (a warp's part) for mma.m16n8k16.
__device__ __forceinline__ void decodeBf16(uint32_t word, uint32_t* a) {
  constexpr uint32_t k128 = 0x43004300u, k136 = 0x43084308u;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    uint32_t v;  // (word >> 4 j & mask) | k128: written out, since the compiler makes two instructions of it
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(v) : "r"(word >> 4 * j), "n"(0x000f000f), "r"(k128));
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(a[j]) : "r"(v), "r"(k136));
  }
}

/// Half a group's words → the A operands of four steps.
__device__ __forceinline__ void decodeBf16(const uint4& words, uint32_t (&a)[16]) {
  decodeBf16(words.x, a);
  decodeBf16(words.y, a + 4);
  decodeBf16(words.z, a + 8);
  decodeBf16(words.w, a + 12);
}

}  // namespace fireq
