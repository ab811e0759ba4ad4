#pragma once

#include <memory>
#include <string>
#include <vector>

#include "driver.h"

namespace fireq::cuda {

struct DeviceStatus {
  int ordinal = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  size_t totalBytes = 0;
  std::string problem;  // why this device can't be used, or empty
};

/// Whether CUDA can be used here, and if not, the first thing that stands in the way.
struct Status {
  std::string problem;  // empty if usable
  int driverVersion = 0;  // 0: no driver
  std::vector<DeviceStatus> devices;
  std::shared_ptr<Driver> driver;  // null if it could not be opened
};

/// Never throws.
Status statusOf(const std::string& library);

DeviceStatus describeDevice(const Driver& driver, int ordinal);

}  // namespace fireq::cuda
