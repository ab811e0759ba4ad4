#pragma once

#include <memory>
#include <string>
#include <vector>

#include "allocator.h"

namespace fireq::cuda {

class Device;
class Stream;

/// Device memory, given back when the last share of it goes: a graph keeps the buffers it was captured with.
class Buffer {
 public:
  /// Memory for work on `stream`; other streams may use it after an event orders them.
  static std::shared_ptr<Buffer> allocate(const std::shared_ptr<Stream>& stream, size_t bytes, const std::string& what);
  ~Buffer();

  size_t bytes() const { return bytes_; }
  Device& device() const;

  /// The address at `offset`, for `bytes` bytes of work on `stream`. Throws if they aren't inside or if the stream is
  /// another device's.
  CUdeviceptr use(const std::shared_ptr<Stream>& stream, size_t offset, size_t bytes, const std::string& what);

 private:
  Buffer(std::shared_ptr<Stream> stream, Block block, size_t bytes);
  static void giveUp(std::unique_ptr<Buffer> buffer);

  const std::shared_ptr<Stream> stream_;
  const Block block_;
  const size_t bytes_;
  std::vector<std::shared_ptr<Stream>> otherUsers_;
};

}  // namespace fireq::cuda
