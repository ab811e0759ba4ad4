#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "device.h"

namespace fireq::cuda {

class Event;
class Graph;

/// A queue of work on a device: everything here returns once the work is enqueued. `what` names the caller's op and
/// shapes for errors.
class Stream : public std::enable_shared_from_this<Stream> {
 public:
  static std::shared_ptr<Stream> create(std::shared_ptr<Device> device);
  ~Stream();

  Device& device() const { return *device_; }
  Allocator::StreamId id() const { return id_; }
  CUstream handle() const { return handle_; }
  bool isCapturing() const { return capturing_; }

  void fill(const std::shared_ptr<Buffer>& buffer, size_t offset, size_t bytes, unsigned char value,
            const std::string& what);
  void copy(const std::shared_ptr<Buffer>& from, size_t fromOffset, const std::shared_ptr<Buffer>& to, size_t toOffset,
            size_t bytes, const std::string& what);
  /// Copies `from` before it returns; at most Staging::kChunkBytes.
  void upload(const void* from, size_t bytes, const std::shared_ptr<Buffer>& to, size_t offset, const std::string& what);
  /// Copies from a chunk that the caller holds, and gives it up.
  void uploadHeld(Staging::Chunk& chunk, size_t bytes, const std::shared_ptr<Buffer>& to, size_t offset,
                  const std::string& what);
  /// Starts a copy into a chunk that the caller reads after `wait(chunk)` and then gives up (isHeld = false).
  Staging::Chunk& download(const std::shared_ptr<Buffer>& from, size_t offset, size_t bytes, const std::string& what);

  void record(const Event& event);
  /// Work enqueued from here on starts after the event.
  void waitFor(const Event& event);

  /// What is enqueued until `endCapture` becomes a graph and doesn't run.
  void beginCapture();
  std::shared_ptr<Graph> endCapture();
  /// The graph must have been captured on this stream, which the memory it keeps is known to.
  void replay(const Graph& graph, const std::string& what);

  /// An event, the caller's, after all work so far.
  CUevent end();
  /// The same, or null if the device is lost.
  CUevent endOrNull() noexcept;

  /// Notes a launch, so that a failure found later can name it.
  void launched(const std::string& what);
  /// A capture keeps what the captured work uses.
  void keep(const std::shared_ptr<void>& used);
  /// Holds a buffer whose end an event can't mark now, until the capture ends.
  void park(std::unique_ptr<Buffer> buffer);
  /// What a wait for this stream is, with the latest launches, oldest first: a fault is only seen by the next wait.
  std::string waitingText() const;

 private:
  explicit Stream(std::shared_ptr<Device> device);
  void refuseInCapture(const std::string& what) const;

  const std::shared_ptr<Device> device_;
  const Allocator::StreamId id_;
  CUstream handle_ = nullptr;
  bool capturing_ = false;
  std::vector<std::shared_ptr<void>> kept_;
  std::vector<std::unique_ptr<Buffer>> parked_;
  std::array<std::string, 4> launches_;
  size_t launchCount_ = 0;
};

/// A point in a stream's work, with the time it was reached.
class Event {
 public:
  static std::shared_ptr<Event> create(std::shared_ptr<Device> device);
  ~Event();

  Device& device() const { return *device_; }
  CUevent handle() const { return handle_; }
  /// Milliseconds from `start` to this; both must have been reached.
  float since(const Event& start) const;

 private:
  explicit Event(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  const std::shared_ptr<Device> device_;
  CUevent handle_ = nullptr;
};

/// Captured work that runs again with one call, and all that it uses.
class Graph {
 public:
  Graph(std::shared_ptr<Stream> stream, CUgraphExec handle, std::vector<std::shared_ptr<void>> kept)
      : stream_(std::move(stream)), handle_(handle), kept_(std::move(kept)) {}
  ~Graph();

  CUgraphExec handle() const { return handle_; }
  const std::shared_ptr<Stream>& stream() const { return stream_; }

 private:
  const std::shared_ptr<Stream> stream_;
  const CUgraphExec handle_;
  const std::vector<std::shared_ptr<void>> kept_;
};

/// Blocks this thread, which may be any, until the event is reached.
void waitForEvent(const Device& device, CUevent event, const std::string& what);

}  // namespace fireq::cuda
