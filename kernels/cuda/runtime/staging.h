#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "driver.h"

namespace fireq::cuda {

/// Pinned host memory that copies go through, in chunks: the device reads and writes it on its own time.
/// Needs the device's context to be current.
class Staging {
 public:
  static constexpr size_t kChunkBytes = size_t{2} << 20;

  struct Chunk {
    void* data = nullptr;
    CUevent event = nullptr;  // the copy that last used it
    bool isHeld = false;      // by a copy from the device that nobody has read yet
  };

  explicit Staging(const Driver& driver) : driver_(driver) {}

  /// A chunk that no copy uses. Waits for the oldest one when there are many.
  Chunk& acquire(const std::string& what);
  /// Frees all chunks, whatever the driver answers.
  void release();

 private:
  const Driver& driver_;
  std::vector<std::unique_ptr<Chunk>> chunks_;  // the one used longest ago first
};

}  // namespace fireq::cuda
