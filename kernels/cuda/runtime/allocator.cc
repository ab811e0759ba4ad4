#include "allocator.h"

#include <algorithm>
#include <bit>

namespace fireq::cuda {

namespace {

constexpr size_t kSmallest = 512, kLargestSmall = size_t{1} << 20, kGranularity = size_t{2} << 20;
constexpr size_t kMost = size_t{1} << 48;  // more than any GPU addresses; keeps the arithmetic from wrapping

std::string sizeText(size_t bytes) {
  constexpr double kMebibyte = 1 << 20;
  const double mebibytes = static_cast<double>(bytes) / kMebibyte;
  return mebibytes >= 1024 ? format("%.2f GiB", mebibytes / 1024) : format("%.2f MiB", mebibytes);
}

}  // namespace

size_t Allocator::roundUp(size_t bytes) {
  if (bytes > kLargestSmall) return (bytes + kGranularity - 1) / kGranularity * kGranularity;
  if (bytes <= kSmallest) return kSmallest;
  const size_t step = std::max(std::bit_floor(bytes - 1) / 4, size_t{128});
  return (bytes + step - 1) / step * step;
}

Block Allocator::allocate(size_t bytes, StreamId stream, const std::string& what) {
  if (bytes > kMost) fail(bytes, what);
  const size_t rounded = roundUp(bytes);
  collect();
  Block block;
  if (!takeCached(rounded, stream, block)) {
    CUresult result = takeFromDriver(rounded, block);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
      statistics_.retries++;
      trim();
      result = takeFromDriver(rounded, block);
      if (result == CUDA_ERROR_OUT_OF_MEMORY) fail(bytes, what);
    }
    if (result != CUDA_SUCCESS) throw driver_.failure(what, driver_.cuMemAlloc.symbol, result);
  }
  statistics_.allocations++;
  statistics_.blocks++;
  statistics_.allocated += block.bytes;
  statistics_.peakAllocated = std::max(statistics_.peakAllocated, statistics_.allocated);
  return block;
}

bool Allocator::takeCached(size_t bytes, StreamId stream, Block& block) {
  const auto own = ofStream_.find(stream);
  return (own != ofStream_.end() && take(own->second, bytes, block)) || take(idle_, bytes, block);
}

bool Allocator::take(Blocks& from, size_t bytes, Block& block) {
  const auto found = from.lower_bound(bytes);
  if (found == from.end() || found->first > bytes + bytes / 8) return false;
  block = {found->second, found->first};
  from.erase(found);
  return true;
}

CUresult Allocator::takeFromDriver(size_t bytes, Block& block) {
  CUdeviceptr address = 0;
  const CUresult result = driver_.cuMemAlloc.address(&address, bytes);
  if (result != CUDA_SUCCESS) return result;
  block = {address, bytes};
  statistics_.driverAllocations++;
  statistics_.reserved += bytes;
  statistics_.peakReserved = std::max(statistics_.peakReserved, statistics_.reserved);
  return CUDA_SUCCESS;
}

void Allocator::retire(Block block) {
  statistics_.blocks--;
  statistics_.allocated -= block.bytes;
}

void Allocator::free(Block block, StreamId stream) {
  retire(block);
  ofStream_[stream].emplace(block.bytes, block.address);
}

void Allocator::freeAfter(Block block, std::vector<CUevent> events) {
  retire(block);
  waiting_.push_back({{{block.bytes, block.address}}, std::move(events)});
}

void Allocator::close(StreamId stream, CUevent event) {
  waiting_.push_back({std::move(ofStream_[stream]), {event}});
  ofStream_.erase(stream);
}

/// Blocks whose events have passed become idle.
void Allocator::collect() {
  const auto isDone = [&](Waiting& waiting) {
    for (CUevent event : waiting.events) {
      if (driver_.cuEventQuery.address(event) != CUDA_SUCCESS) return false;
    }
    for (CUevent event : waiting.events) driver_.cuEventDestroy.address(event);
    idle_.merge(waiting.blocks);
    return true;
  };
  std::erase_if(waiting_, isDone);
}

size_t Allocator::trim() {
  driver_.call("giving cached GPU memory back", driver_.cuCtxSynchronize);
  const size_t before = statistics_.reserved;
  release();
  return before - statistics_.reserved;
}

void Allocator::release() {
  for (Waiting& waiting : waiting_) {
    for (CUevent event : waiting.events) driver_.cuEventDestroy.address(event);
    idle_.merge(waiting.blocks);
  }
  waiting_.clear();
  for (auto& [stream, blocks] : ofStream_) idle_.merge(blocks);
  ofStream_.clear();
  for (const auto& [bytes, address] : idle_) {
    driver_.cuMemFree.address(address);
    statistics_.reserved -= bytes;
  }
  idle_.clear();
}

void Allocator::fail(size_t bytes, const std::string& what) const {
  size_t free = 0, total = 0;
  driver_.cuMemGetInfo.address(&free, &total);
  throw Error(what + ": out of GPU memory: " + sizeText(bytes) + " wanted, but " + sizeText(free) + " of " +
              sizeText(total) + " are free; " + sizeText(statistics_.allocated) + " are in use here, in " +
              std::to_string(statistics_.blocks) + " blocks");
}

}  // namespace fireq::cuda
