#include "buffer.h"

#include <algorithm>

#include "device.h"
#include "stream.h"

namespace fireq::cuda {

std::shared_ptr<Buffer> Buffer::allocate(const std::shared_ptr<Stream>& stream, size_t bytes, const std::string& what) {
  if (stream->isCapturing()) throw Error(what + ": memory can't be allocated while a graph is captured");
  const Device::Current current(stream->device());
  const Block block = stream->device().allocator().allocate(bytes, stream->id(), what);
  return {new Buffer(stream, block, bytes), [](Buffer* buffer) { giveUp(std::unique_ptr<Buffer>(buffer)); }};
}

/// An event can't mark the end of its use while one of its streams captures.
void Buffer::giveUp(std::unique_ptr<Buffer> buffer) {
  for (const auto& user : buffer->otherUsers_) {
    if (user->isCapturing()) return user->park(std::move(buffer));
  }
  if (!buffer->otherUsers_.empty() && buffer->stream_->isCapturing()) buffer->stream_->park(std::move(buffer));
}

Buffer::Buffer(std::shared_ptr<Stream> stream, Block block, size_t bytes)
    : stream_(std::move(stream)), block_(block), bytes_(bytes) {}

Buffer::~Buffer() {
  Allocator& allocator = device().allocator();
  if (otherUsers_.empty()) {
    allocator.free(block_, stream_->id());
    return;
  }
  otherUsers_.push_back(stream_);
  std::vector<CUevent> events;
  for (const auto& user : otherUsers_) {
    if (const CUevent event = user->endOrNull(); event != nullptr) events.push_back(event);
  }
  allocator.freeAfter(block_, std::move(events));
}

Device& Buffer::device() const { return stream_->device(); }

CUdeviceptr Buffer::use(const std::shared_ptr<Stream>& stream, size_t offset, size_t bytes, const std::string& what) {
  if (&stream->device() != &device()) throw Error(what + ": the buffer is on another device than the stream");
  if (offset > bytes_ || bytes > bytes_ - offset) {
    throw Error(format("%s: expected bytes %zu to %zu to be inside the buffer of %zu", what.c_str(), offset,
                       offset + bytes, bytes_));
  }
  if (stream != stream_ && std::find(otherUsers_.begin(), otherUsers_.end(), stream) == otherUsers_.end()) {
    otherUsers_.push_back(stream);
  }
  return block_.address + offset;
}

}  // namespace fireq::cuda
