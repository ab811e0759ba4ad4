// INT4 weights as a checkpoint holds them → the blocks that ../int4.cuh and ../int4_bf16.cuh describe. Plain host code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../../cpu/core/pool.h"

namespace fireq::cuda {

enum class GroupScaleType { kBf16, kE4m3, kFp32 };

/// Consecutive rows of a checkpoint's tensor: code + 8 in a nibble, even k in the low one.
struct Int4Rows {
  const uint8_t* codes = nullptr;       // [rows, K / 2]
  const char* scales = nullptr;         // [rows, K / group]
  const float* channelScale = nullptr;  // [rows], or null for 1
};

/// Rows to pack. Either one part; or two, gate's and up's, half of the rows each: then every 16 packed rows are eight of
/// the first part and the eight of the second that meet them.
struct Int4Slab {
  std::vector<Int4Rows> parts;
  GroupScaleType scaleType = GroupScaleType::kBf16;
  int64_t rows = 0;      // all together
  int64_t columns = 0;   // K, a multiple of 128
  int64_t group = 128;   // of K with one scale: 32, 64 or 128
  int64_t firstRow = 0;  // of the slab in the packed tensor, for errors
};

/// How blocks are written.
struct PackedFormat {
  bool full = false;  // codes −8…7, else −7…7
  int scaleBytes = 2;  // BF16, or 4: FP32
  bool forBf16 = false;  // in the order of ../int4_bf16.cuh, for BF16 activations; goes with `full`
};

/// What a slab holds that the format can't; its blocks are then useless.
struct PackFindings {
  bool needsFull = false;
  bool needsFp32 = false;  // a group's scale times its row's isn't a BF16 number
};

/// 64 rows × 128 columns: codes, then [128 / group][64] scales.
size_t blockBytes(const Int4Slab& slab, const PackedFormat& format);

/// Packs ceil(rows / 64) · K / 128 blocks; `blockAt(i)` is where the i-th goes. Groups whose scale or whose codes are all
/// zero become zero codes under the row's scale before, since kernels divide by scales. Rows of blocks are spread over the
/// pool's threads; returns when all are done. Throws Error for a scale that isn't finite or that kernels can't divide by,
/// naming row and group.
PackFindings packInt4(const Int4Slab& slab, const PackedFormat& format, Pool& pool,
                      const std::function<char*(int64_t)>& blockAt, const std::string& what);

}  // namespace fireq::cuda
