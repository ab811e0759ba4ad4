#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "driver.h"

namespace fireq::cuda {

/// Device memory: what a block takes is `bytes`, at least what was asked for.
struct Block {
  CUdeviceptr address = 0;
  size_t bytes = 0;
};

struct MemoryStatistics {
  size_t allocated = 0;      // bytes in blocks that are in use
  size_t reserved = 0;       // bytes taken from the driver
  size_t peakAllocated = 0;  // the most at any time
  size_t peakReserved = 0;
  size_t blocks = 0;             // in use
  uint64_t allocations = 0;      // so far
  uint64_t driverAllocations = 0;  // those that the cache could not serve
  uint64_t retries = 0;          // times that memory ran out and the cache was given back
};

/**
 * Caches device memory, because asking the driver for it waits for the whole device.
 *
 * A freed block belongs to the stream it was last used on, and that stream may have it again at once: its work runs in
 * order. Once an event says that a block's work is done (after its stream closed, or if several streams used it), any
 * stream may have it. Sizes: up to 1 MiB four a power of two; above, multiples of 2 MiB, the driver's granularity; a
 * cached block serves if it is at most an eighth too large.
 *
 * Needs the device's context to be current.
 */
class Allocator {
 public:
  using StreamId = uint64_t;

  explicit Allocator(const Driver& driver) : driver_(driver) {}

  /// Throws Error if there isn't enough even after giving the cache back: what for, how much, how much there is.
  Block allocate(size_t bytes, StreamId stream, const std::string& what);

  /// The block was used on `stream` only.
  void free(Block block, StreamId stream);
  /// The block's uses are over when all `events` are; takes the events.
  void freeAfter(Block block, std::vector<CUevent> events);
  /// The stream is closing; its work is over when `event` is; takes the event.
  void close(StreamId stream, CUevent event);

  /// Waits for the device and gives every cached block back to the driver; returns the bytes.
  size_t trim();
  /// Gives everything that isn't in use back, whatever the driver answers.
  void release();

  const MemoryStatistics& statistics() const { return statistics_; }

  static size_t roundUp(size_t bytes);

 private:
  using Blocks = std::multimap<size_t, CUdeviceptr>;
  struct Waiting {
    Blocks blocks;
    std::vector<CUevent> events;
  };

  bool take(Blocks& from, size_t bytes, Block& block);
  bool takeCached(size_t bytes, StreamId stream, Block& block);
  CUresult takeFromDriver(size_t bytes, Block& block);
  void collect();
  void retire(Block block);
  [[noreturn]] void fail(size_t bytes, const std::string& what) const;

  const Driver& driver_;
  std::map<StreamId, Blocks> ofStream_;
  Blocks idle_;
  std::vector<Waiting> waiting_;
  MemoryStatistics statistics_;
};

}  // namespace fireq::cuda
