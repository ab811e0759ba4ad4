// How the work of a decode launch is cut: made on the host (packages/kernels/src/cuda/decode-plan.ts) whenever lengths change, read by
// attention_decode. All 32-bit, little endian.
//
// A segment is what one pass over a sequence's tokens serves: a key-value head and up to as many queries as the kernel takes. A unit is
// 32 tokens of it. Every warp has a run of units that follow each other, all runs alike in length whatever the lengths of sequences; a run is
// pieces of one or more segments.
#pragma once
#include <cstdint>

namespace fireq::decode {

struct Piece {
  int32_t sequence, keyHead, part;  // part: which queries of the head's, in as many as the kernel takes
  int32_t start, first, count;      // units: of the run before it, of the segment before it, its own; none if the sequence is empty
  int32_t length;                   // of the sequence, with the new tokens
  int32_t merge;                    // 0: the piece is all of its segment. Else its sums are left for the block's merge of this number, from 1 on
};

constexpr int kFirstBlocks = 20;

/// As many words as a warp has lanes.
struct Run {
  int32_t pieces, firstPiece, units, unused;
  Piece piece;                    // the first one
  uint32_t blocks[kFirstBlocks];  // where the first units lie: (page · keyHeads + keyHead) · 2 + half of the page
};
static_assert(sizeof(Run) == 32 * 4);

/// Adds up what a block's warps have of one segment.
struct Merge {
  int32_t sequence, keyHead, part;
  int32_t firstWarp, warps;  // the last one's sums are those of its run's first piece if `early`, of its last one otherwise
  int32_t early;
  int32_t crossing;               // −1: the sum is the result. Else other blocks have others: which counter of arrivals,
  int32_t slot, firstSlot, slots;  // where it is left among partial sums, and where all the segment's are
  int32_t unused[2];
};

/// Of a block: its merges, at most one more than warps.
template <int kWarps>
struct Merges {
  int32_t count, unused[3];
  Merge merges[kWarps + 1];
};

}  // namespace fireq::decode
