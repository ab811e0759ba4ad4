#include "staging.h"

#include <algorithm>

namespace fireq::cuda {

namespace {

constexpr size_t kMostChunks = 8;

}  // namespace

Staging::Chunk& Staging::acquire(const std::string& what) {
  auto found = std::find_if(chunks_.begin(), chunks_.end(), [&](const auto& chunk) {
    return !chunk->isHeld && driver_.cuEventQuery.address(chunk->event) == CUDA_SUCCESS;
  });
  if (found == chunks_.end() && chunks_.size() >= kMostChunks) {
    found = std::find_if(chunks_.begin(), chunks_.end(), [](const auto& chunk) { return !chunk->isHeld; });
    if (found != chunks_.end()) driver_.call(what, driver_.cuEventSynchronize, (*found)->event);
  }
  if (found == chunks_.end()) {
    auto chunk = std::make_unique<Chunk>();
    driver_.call(what, driver_.cuEventCreate, &chunk->event, static_cast<unsigned>(CU_EVENT_DISABLE_TIMING));
    if (const CUresult result = driver_.cuMemAllocHost.address(&chunk->data, kChunkBytes); result != CUDA_SUCCESS) {
      driver_.cuEventDestroy.address(chunk->event);
      throw driver_.failure(what, driver_.cuMemAllocHost.symbol, result);
    }
    chunks_.push_back(std::move(chunk));
    found = chunks_.end() - 1;
  }
  std::rotate(found, found + 1, chunks_.end());
  return *chunks_.back();
}

void Staging::release() {
  for (const auto& chunk : chunks_) {
    driver_.cuMemFreeHost.address(chunk->data);
    driver_.cuEventDestroy.address(chunk->event);
  }
  chunks_.clear();
}

}  // namespace fireq::cuda
