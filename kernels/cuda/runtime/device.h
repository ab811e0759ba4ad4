#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "../../cpu/core/pool.h"
#include "allocator.h"
#include "driver.h"
#include "staging.h"
#include "status.h"

namespace fireq::cuda {

/**
 * One GPU's primary context with its memory and its loaded kernels. Everything made on it holds a share of it, so it goes
 * when the last of them does. All calls come from one thread, except that another one may wait for an event.
 */
class Device : public std::enable_shared_from_this<Device> {
 public:
  static std::shared_ptr<Device> open(std::shared_ptr<Driver> driver, int ordinal);
  ~Device();

  const Driver& driver() const { return *driver_; }
  const DeviceStatus& status() const { return status_; }
  Allocator& allocator() { return allocator_; }
  Staging& staging() { return staging_; }
  /// Threads that prepare what is uploaded, as many as the machine runs at once; started when first asked for.
  Pool& pool();

  /// The module that holds a kernel, loaded from its cubin the first time.
  CUmodule moduleOf(const std::string& kernel);

  /// Makes the context current on this thread for its lifetime.
  class Current {
   public:
    explicit Current(const Device& device, const char* what = "making a GPU current");
    ~Current();
    Current(const Current&) = delete;
    Current& operator=(const Current&) = delete;

   private:
    const Device& device_;
  };

 private:
  Device(std::shared_ptr<Driver> driver, int ordinal);

  const std::shared_ptr<Driver> driver_;
  const DeviceStatus status_;
  CUdevice handle_ = 0;
  CUcontext context_ = nullptr;
  std::unordered_map<std::string, CUmodule> modules_;
  Allocator allocator_;
  Staging staging_;
  std::unique_ptr<Pool> pool_;
};

}  // namespace fireq::cuda
