// What a launcher must know of one attention kernel. Every one exports it as the constant `<name>_info`, so that the host reads it
// from the cubin instead of repeating it.
#pragma once
#include <cstdint>

namespace fireq {

struct AttentionInfo {
  int32_t threads;      // threads a block
  int32_t sharedBytes;  // dynamic shared memory a block
  int32_t heads;        // store: heads of one kind that a warp has at once; else 0
  int32_t queries;      // decode: queries a key-value head at most; prefill: a block's queries; store: a block's tokens; else 0
  int32_t bytes;        // decode: what a chunk leaves of a key-value head if there are several; tiles: a decoded tile; else 0
};

}  // namespace fireq
