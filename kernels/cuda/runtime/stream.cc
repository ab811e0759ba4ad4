#include "stream.h"

#include <atomic>
#include <cstring>
#include <utility>

namespace fireq::cuda {

namespace {

std::atomic<Allocator::StreamId> nextId = 1;

}  // namespace

std::shared_ptr<Stream> Stream::create(std::shared_ptr<Device> device) {
  std::shared_ptr<Stream> stream(new Stream(std::move(device)));
  const Device::Current current(*stream->device_);
  const Driver& d = stream->device_->driver();
  d.call("making a stream", d.cuStreamCreate, &stream->handle_, static_cast<unsigned>(CU_STREAM_NON_BLOCKING));
  return stream;
}

Stream::Stream(std::shared_ptr<Device> device) : device_(std::move(device)), id_(nextId++) {}

Stream::~Stream() {
  if (handle_ == nullptr) return;
  const Driver& d = device_->driver();
  if (CUgraph graph = nullptr; capturing_ && d.cuStreamEndCapture.address(handle_, &graph) == CUDA_SUCCESS) {
    d.cuGraphDestroy.address(graph);
  }
  capturing_ = false;
  kept_.clear();
  if (const CUevent event = endOrNull(); event != nullptr) device_->allocator().close(id_, event);
  d.cuStreamDestroy.address(handle_);
}

void Stream::fill(const std::shared_ptr<Buffer>& buffer, size_t offset, size_t bytes, unsigned char value,
                  const std::string& what) {
  const CUdeviceptr address = buffer->use(shared_from_this(), offset, bytes, what);
  if (bytes == 0) return;
  const Device::Current current(*device_);
  device_->driver().call(what, device_->driver().cuMemsetD8Async, address, value, bytes, handle_);
  keep(buffer);
}

void Stream::copy(const std::shared_ptr<Buffer>& from, size_t fromOffset, const std::shared_ptr<Buffer>& to,
                  size_t toOffset, size_t bytes, const std::string& what) {
  const CUdeviceptr source = from->use(shared_from_this(), fromOffset, bytes, what);
  const CUdeviceptr target = to->use(shared_from_this(), toOffset, bytes, what);
  if (bytes == 0) return;
  const Device::Current current(*device_);
  device_->driver().call(what, device_->driver().cuMemcpyDtoDAsync, target, source, bytes, handle_);
  keep(from);
  keep(to);
}

void Stream::upload(const void* from, size_t bytes, const std::shared_ptr<Buffer>& to, size_t offset,
                    const std::string& what) {
  refuseInCapture(what);
  const CUdeviceptr target = to->use(shared_from_this(), offset, bytes, what);
  if (bytes > Staging::kChunkBytes) throw Error(what + ": more than a chunk at once");
  if (bytes == 0) return;
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  Staging::Chunk& chunk = device_->staging().acquire(what);
  std::memcpy(chunk.data, from, bytes);
  d.call(what, d.cuMemcpyHtoDAsync, target, chunk.data, bytes, handle_);
  d.call(what, d.cuEventRecord, chunk.event, handle_);
}

void Stream::uploadHeld(Staging::Chunk& chunk, size_t bytes, const std::shared_ptr<Buffer>& to, size_t offset,
                        const std::string& what) {
  refuseInCapture(what);
  const CUdeviceptr target = to->use(shared_from_this(), offset, bytes, what);
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  d.call(what, d.cuMemcpyHtoDAsync, target, chunk.data, bytes, handle_);
  d.call(what, d.cuEventRecord, chunk.event, handle_);
  chunk.isHeld = false;
}

Staging::Chunk& Stream::download(const std::shared_ptr<Buffer>& from, size_t offset, size_t bytes,
                                 const std::string& what) {
  refuseInCapture(what);
  const CUdeviceptr source = from->use(shared_from_this(), offset, bytes, what);
  if (bytes > Staging::kChunkBytes) throw Error(what + ": more than a chunk at once");
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  Staging::Chunk& chunk = device_->staging().acquire(what);
  if (bytes > 0) d.call(what, d.cuMemcpyDtoHAsync, chunk.data, source, bytes, handle_);
  d.call(what, d.cuEventRecord, chunk.event, handle_);
  chunk.isHeld = true;
  return chunk;
}

void Stream::record(const Event& event) {
  refuseInCapture("recording an event");
  if (&event.device() != device_.get()) throw Error("the event is another device's");
  const Device::Current current(*device_);
  device_->driver().call("recording an event", device_->driver().cuEventRecord, event.handle(), handle_);
}

void Stream::waitFor(const Event& event) {
  refuseInCapture("waiting for an event");
  const Device::Current current(*device_);
  device_->driver().call("waiting for an event", device_->driver().cuStreamWaitEvent, handle_, event.handle(), 0u);
}

void Stream::beginCapture() {
  refuseInCapture("capturing a graph");
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  d.call("capturing a graph", d.cuStreamBeginCapture, handle_, static_cast<int>(CU_STREAM_CAPTURE_MODE_RELAXED));
  capturing_ = true;
}

std::shared_ptr<Graph> Stream::endCapture() {
  if (!capturing_) throw Error("no graph is being captured");
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  CUgraph graph = nullptr;
  const CUresult ended = d.cuStreamEndCapture.address(handle_, &graph);
  capturing_ = false;
  std::vector<std::shared_ptr<void>> kept = std::exchange(kept_, {});
  const std::vector<std::unique_ptr<Buffer>> parked = std::exchange(parked_, {});
  if (ended != CUDA_SUCCESS) throw d.failure("capturing a graph", d.cuStreamEndCapture.symbol, ended);
  CUgraphExec executable = nullptr;
  const CUresult result = d.cuGraphInstantiate.address(&executable, graph, 0);
  d.cuGraphDestroy.address(graph);
  if (result != CUDA_SUCCESS) throw d.failure("making a captured graph runnable", d.cuGraphInstantiate.symbol, result);
  return std::make_shared<Graph>(shared_from_this(), executable, std::move(kept));
}

void Stream::replay(const Graph& graph, const std::string& what) {
  refuseInCapture(what);
  if (graph.stream().get() != this) throw Error(what + ": the graph was captured on another stream");
  const Device::Current current(*device_);
  device_->driver().call(what, device_->driver().cuGraphLaunch, graph.handle(), handle_);
  launched(what);
}

CUevent Stream::end() {
  const std::string what = "marking the end of a stream's work";
  refuseInCapture(what);
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  CUevent event = nullptr;
  d.call(what, d.cuEventCreate, &event, static_cast<unsigned>(CU_EVENT_DISABLE_TIMING));
  if (const CUresult result = d.cuEventRecord.address(event, handle_); result != CUDA_SUCCESS) {
    d.cuEventDestroy.address(event);
    throw d.failure(what, d.cuEventRecord.symbol, result);
  }
  return event;
}

CUevent Stream::endOrNull() noexcept {
  try {
    return end();
  } catch (const Error&) {
    return nullptr;
  }
}

void Stream::launched(const std::string& what) { launches_[launchCount_++ % launches_.size()] = what; }

void Stream::keep(const std::shared_ptr<void>& used) {
  if (capturing_) kept_.push_back(used);
}

void Stream::park(std::unique_ptr<Buffer> buffer) { parked_.push_back(std::move(buffer)); }

std::string Stream::waitingText() const {
  if (launchCount_ == 0) return "waiting for the GPU";
  std::string text;
  for (size_t i = launchCount_ - std::min(launchCount_, launches_.size()); i < launchCount_; i++) {
    text += (text.empty() ? "" : "; ") + launches_[i % launches_.size()];
  }
  return "waiting for the GPU (its latest launches: " + text + ")";
}

void Stream::refuseInCapture(const std::string& what) const {
  if (capturing_) throw Error(what + ": not while a graph is captured");
}

std::shared_ptr<Event> Event::create(std::shared_ptr<Device> device) {
  std::shared_ptr<Event> event(new Event(std::move(device)));
  const Device::Current current(*event->device_);
  const Driver& d = event->device_->driver();
  d.call("making an event", d.cuEventCreate, &event->handle_, 0u);
  return event;
}

Event::~Event() {
  if (handle_ != nullptr) device_->driver().cuEventDestroy.address(handle_);
}

float Event::since(const Event& start) const {
  float milliseconds = 0;
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  d.call("the time between two events", d.cuEventElapsedTime, &milliseconds, start.handle_, handle_);
  return milliseconds;
}

Graph::~Graph() { stream_->device().driver().cuGraphExecDestroy.address(handle_); }

void waitForEvent(const Device& device, CUevent event, const std::string& what) {
  const Device::Current current(device);
  device.driver().call(what, device.driver().cuEventSynchronize, event);
}

}  // namespace fireq::cuda
