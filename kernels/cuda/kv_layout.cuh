// The paged cache of keys and values as the attention kernels read it: INT4, and E4M3 and BF16 as baselines; heads of D = 64 or 128
// channels. kv_layout.py and packages/kernels/test/cuda/kv-layout.ts lay pages out from this text alone.
//
// A layer's cache is [pages, keyHeads, kPageBytes]; a page holds 64 tokens. Of a page and key-value head, two blocks of 32 tokens
// follow each other, kBlockBytes each, so that one bulk copy fetches a block or the page. In a block keys begin at 0, values at
// kValues, scales at kScales (all multiples of 128 bytes). Little endian; the lowest bits of a word are nibble, byte or half 0.
//
//   INT4  uint32  keys[32][D / 8]               a row a token; word D/32 · l + s (l = 0…3, s = 0…D/32 − 1), nibble 4e + j (j = 0…3):
//                                               channel 32s + 16 ⌊j / 2⌋ + 8 (j % 2) + 2l + e
//         uint32  values[4][4][8][D / 32]       word (i, l, n ^ 2l, c), nibble 4e + j: token 8i + 2l + e, channel D/4 · j + 8c + n
//         uint32  scales[32]                    of a token's key (low half) and value (high half), see KvFormat
//   E4M3  uint8   keys[D / 64][32][64]          (h, token, k): channel 64h + k
//         uint32  values[4][D / 64][4][8][4]    word (i, h, l, n ^ 2l, c), byte 2j + e (j = 0, 1): token 8i + 2l + e, channel 64h + 32j + 8c + n
//         uint32  scales[32]                    BF16 σ of the key (low half) and of the value (high half)
//   BF16  uint16  keys[D / 32][32][32]          (h, token, k): channel 32h + k
//         uint32  values[4][D / 32][4][8][4]    word (i, h, l, n ^ 2l, c), half e: token 8i + 2l + e, channel 32h + 8c + n
//
// i, l = 0…3 and n = 0…7 everywhere, e = 0, 1. These are the orders of mma m16n8k16's A fragment: keys meet queries along their
// channels, values meet probabilities along their tokens, and the probabilities of 8 tokens leave the first product in the order in which
// the second wants them; so two tokens of a channel are neighbours. A warp reads 256 or 512 contiguous bytes at once, a lane 8 or 16 of
// them; n ^ 2l spreads the values of eight neighbouring lanes over all banks of shared memory.
//
// What is stored, of a token and head's vector x, its key or its value: σ · (code − zero), with an FP32 quotient and σ rounded first.
// * INT4 symmetric: codes 0…15, zero 8, σ = BF16(max|x| / 7); asymmetric: σ = E4M3((max − min) / 15), zero 0…15 (roundKvGroup).
//   The FP16 numbers 0x0000…0x000F are exactly 0…15 · 2⁻²⁴, and 0x0000…0x00F0 are 0…15 · 2⁻²⁰: masks decode. (Hopper's mma has FP16
//   operands at the narrowest: FP8 ones are converted, an instruction a pair. FP8 at twice the rate is wgmma's alone.)
// * E4M3: code E4M3(x / σ), saturating, zero 0, σ = BF16(max|x| / 448), 2⁻¹²⁶ at least. BF16 σ where quantizeFp8 has FP32 ones: it
//   moves all codes of a vector by less than 2⁻⁹, a thirtieth of a code's own rounding, and the scale's word is INT4's.
// * BF16: x rounded, no scales.
// A vector with a NaN or an infinity gets σ = NaN (0x7fc0; E4M3 0x7f), any codes; in BF16 it stays what it is.
#pragma once
#include <cstdint>

namespace fireq {

constexpr int kPageTokens = 64;
constexpr int kKvBlockTokens = 32;
constexpr int kPageBlocks = kPageTokens / kKvBlockTokens;

enum class KvFormat {
  kInt4Symmetric,   // scales: BF16 σ of the key, BF16 σ of the value
  kInt4Asymmetric,  // bytes: E4M3 σ and zero point of the key, E4M3 σ and zero point of the value
  kE4m3,
  kBf16,
  kBf16Symmetric = kInt4Symmetric,  // older names
  kE4m3Asymmetric = kInt4Asymmetric,
};
using ScaleFormat = KvFormat;

template <KvFormat kFormat_, int kHeadDim_>
struct KvLayout {
  static constexpr KvFormat kFormat = kFormat_;
  static constexpr int kHeadDim = kHeadDim_;
  static_assert(kHeadDim == 64 || kHeadDim == 128, "heads of 64 or 128 channels");
  static constexpr bool kIsInt4 = kFormat == KvFormat::kInt4Symmetric || kFormat == KvFormat::kInt4Asymmetric;
  static constexpr bool kHasScales = kFormat != KvFormat::kBf16;
  static constexpr int kCodeBits = kIsInt4 ? 4 : kFormat == KvFormat::kE4m3 ? 8 : 16;
  static constexpr int kValues = kKvBlockTokens * kHeadDim * kCodeBits / 8;  // where a block's values begin, in bytes
  static constexpr int kScales = 2 * kValues;                                // and its scales
  static constexpr int kBlockBytes = kScales + (kHasScales ? kKvBlockTokens * 4 : 0);
  static constexpr int kPageBytes = kPageBlocks * kBlockBytes;
};
static_assert(KvLayout<KvFormat::kInt4Symmetric, 128>::kPageBytes == 64 * 132 && KvLayout<KvFormat::kInt4Symmetric, 64>::kPageBytes == 64 * 68);
static_assert(KvLayout<KvFormat::kE4m3, 128>::kPageBytes == 64 * 260 && KvLayout<KvFormat::kBf16, 64>::kPageBytes == 64 * 256);

constexpr float kLowUnit = 0x1p-24f, kHighUnit = 0x1p-20f;  // of INT4 codes masked by 0x000f000f and 0x00f000f0

// INT4 with heads of 128, by older names.
constexpr int kHeadDim = 128;
constexpr int kKvBlockBytes = KvLayout<KvFormat::kInt4Symmetric, 128>::kBlockBytes;
constexpr int kKvPageBytes = KvLayout<KvFormat::kInt4Symmetric, 128>::kPageBytes;
constexpr int kKvValues = KvLayout<KvFormat::kInt4Symmetric, 128>::kValues;
constexpr int kKvScales = KvLayout<KvFormat::kInt4Symmetric, 128>::kScales;

}  // namespace fireq
