#include "status.h"

#include "cubins.h"

namespace fireq::cuda {

namespace {

constexpr int kMajor = 9, kMinor = 0;  // sm_90a: code for exactly this architecture

std::string firstProblem(const std::vector<DeviceStatus>& devices) {
  if (devices.empty()) return "no NVIDIA GPU is visible to the driver";
  std::string found;
  for (const DeviceStatus& device : devices) {
    if (device.problem.empty()) return cubins().empty() ? whyNoCubins() : "";
    found += (found.empty() ? "" : "; ") + device.problem;
  }
  return found;
}

}  // namespace

DeviceStatus describeDevice(const Driver& d, int ordinal) {
  const std::string what = "describing GPU " + std::to_string(ordinal);
  DeviceStatus status;
  status.ordinal = ordinal;
  CUdevice device = 0;
  char name[256] = {};
  d.call(what, d.cuDeviceGet, &device, ordinal);
  d.call(what, d.cuDeviceGetName, name, static_cast<int>(sizeof name) - 1, device);
  d.call(what, d.cuDeviceGetAttribute, &status.major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device);
  d.call(what, d.cuDeviceGetAttribute, &status.minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device);
  d.call(what, d.cuDeviceGetAttribute, &status.multiprocessors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device);
  d.call(what, d.cuDeviceTotalMem, &status.totalBytes, device);
  status.name = name;
  if (status.major != kMajor || status.minor != kMinor) {
    status.problem = format("GPU %d (%s) has compute capability %d.%d, but the kernels need %d.%d (Hopper)", ordinal,
                            name, status.major, status.minor, kMajor, kMinor);
  }
  return status;
}

Status statusOf(const std::string& library) {
  Status status;
  try {
    status.driver = Driver::open(library);
    status.driverVersion = status.driver->version();
    int count = 0;
    status.driver->call("counting GPUs", status.driver->cuDeviceGetCount, &count);
    for (int i = 0; i < count; i++) status.devices.push_back(describeDevice(*status.driver, i));
    status.problem = firstProblem(status.devices);
  } catch (const std::exception& error) {
    status.problem = error.what();
  }
  return status;
}

}  // namespace fireq::cuda
