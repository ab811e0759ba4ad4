// What a launcher must know of one compiled kernel. Every kernel exports it as the constant `<name>_info`, so that the
// host reads it from the cubin instead of repeating it.
#pragma once
#include <cstdint>

namespace fireq {

struct KernelInfo {
  int32_t features;     // output features a block
  int32_t tokens;       // tokens a block
  int32_t batch;        // groups of K a copy-engine box of activations
  int32_t storeTokens;  // tokens a copy-engine box of the output; 0: the kernel stores by itself
  int32_t cluster;      // blocks a cluster that share activations
  int32_t threads;      // threads a block
  int32_t sharedBytes;  // dynamic shared memory a block
  int32_t fullCodes;    // 1: takes codes −8…7, 0: −7…7
  int32_t scaleBytes;   // bytes of a group scale: 2 BF16, 4 FP32
  int32_t keptBytes;    // what a block may keep of a tile for another one (kept_sum.cuh)
};

}  // namespace fireq
