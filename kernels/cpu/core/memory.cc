#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <new>

#include "error.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIREQ_HEAP 1  // mapped memory has no red zones
#else
#define FIREQ_HEAP 0
#include <sys/mman.h>
#endif

namespace fireq {

Memory::Memory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
#if FIREQ_HEAP
  data_ = std::aligned_alloc(kCacheLine, alignUp(bytes));
  if (data_ != nullptr) std::memset(data_, 0, bytes);
#else
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  data_ = mapped == MAP_FAILED ? nullptr : mapped;
#ifdef MADV_HUGEPAGE
  if (data_ != nullptr && bytes >= (size_t{8} << 20)) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
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
