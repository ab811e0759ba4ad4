#include "memory.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIREQ_HEAP 1  // mapped memory has no red zones
#else
#define FIREQ_HEAP 0
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace fireq {

#if !FIREQ_HEAP
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

void* mapPages(size_t bytes) {
  void* pages = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return pages == MAP_FAILED ? nullptr : pages;
}

/// Begins at a huge page's bounds, so that all of it but the end can lie in some: weights are read faster for it.
void* mapHugePages(size_t bytes) {
  const size_t whole = alignUp(bytes, static_cast<size_t>(sysconf(_SC_PAGESIZE)));
  auto* const pages = static_cast<char*>(mapPages(whole + kHugePage));
  if (pages == nullptr) return nullptr;
  const size_t before = alignUp(reinterpret_cast<uintptr_t>(pages), kHugePage) - reinterpret_cast<uintptr_t>(pages);
  if (before > 0) munmap(pages, before);
  if (before < kHugePage) munmap(pages + before + whole, kHugePage - before);
#ifdef MADV_HUGEPAGE
  madvise(pages + before, whole, MADV_HUGEPAGE);
#endif
  return pages + before;
}

}  // namespace
#endif

Memory::Memory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
#if FIREQ_HEAP
  data_ = std::aligned_alloc(kCacheLine, alignUp(bytes));
  if (data_ != nullptr) std::memset(data_, 0, bytes);
#else
  data_ = bytes < kHugePage ? mapPages(bytes) : mapHugePages(bytes);
#endif
  if (data_ == nullptr) {
    bytes_ = 0;
    throw Error(format("out of memory: %.1f MiB asked for", static_cast<double>(bytes) / (1 << 20)));
  }
}

void Memory::atLeast(size_t bytes) {
  if (bytes <= bytes_) return;
  release();
  *this = Memory(bytes);
}

void Memory::release() noexcept {
  if (data_ == nullptr) return;
#if FIREQ_HEAP
  std::free(data_);
#else
  munmap(data_, bytes_);
#endif
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace fireq
