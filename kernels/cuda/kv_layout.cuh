// The paged INT4 cache as the attention kernels read it; head_dim 128.
//
// A page holds 64 tokens. Of a page and key-value head, two blocks of 32 tokens follow each other, kKvBlockBytes each, so that
// one bulk copy fetches a block:
//
//   uint32  keys[32][16]         a row a token; word 4l + s (l, s = 0…3), nibble 4e + j: channel 32s + 16 ⌊j / 2⌋ + 8 (j % 2) + 2l + e
//   uint32  values[4][4][8][4]   word (i, l, n ^ 2l, c), nibble 4e + j: token 8i + 2l + e, channel 8 (c + 4j) + n
//   uint32  scales[32]           σ and zero point of a token's key (low half) and value (high half), see ScaleFormat
//
// Both are the order of mma m16n8k16's A fragment: keys meet queries along their channels, values meet probabilities along
// their tokens, and the probabilities of 8 tokens leave the first product in the order in which the second wants them.
// n ^ 2l spreads the values' 16 bytes of eight neighbouring lanes over all banks of shared memory.
//
// Codes are unsigned, 0…15, and a value is σ · (code − zero); symmetric formats have zero 8. The FP16 numbers 0x0000…0x000F
// are exactly 0…15 · 2⁻²⁴, and 0x0000…0x00F0 are 0…15 · 2⁻²⁰: masks decode. (Hopper's mma has FP16 operands at the narrowest:
// FP8 ones are converted, an instruction a pair. FP8 at twice the rate is wgmma's alone.)
#pragma once
#include <cstdint>

namespace fireq {

constexpr int kHeadDim = 128;
constexpr int kPageTokens = 64;
constexpr int kKvBlockTokens = 32;
constexpr int kKvBlockBytes = kKvBlockTokens * (kHeadDim + 4);
constexpr int kKvPageBytes = kPageTokens / kKvBlockTokens * kKvBlockBytes;
constexpr int kKvValues = kKvBlockTokens * kHeadDim / 2;      // where a block's values begin, in bytes
constexpr int kKvScales = 2 * kKvBlockTokens * kHeadDim / 2;  // and its scales
constexpr float kLowUnit = 0x1p-24f, kHighUnit = 0x1p-20f;  // of codes masked by 0x000f000f and 0x00f000f0

enum class ScaleFormat {
  kBf16Symmetric,   // BF16 σ of the key, BF16 σ of the value
  kE4m3Asymmetric,  // bytes: E4M3 σ and zero of the key, E4M3 σ and zero of the value
};

}  // namespace fireq
