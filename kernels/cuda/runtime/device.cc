#include "device.h"

#include <algorithm>
#include <thread>

#include "cubins.h"

namespace fireq::cuda {

std::shared_ptr<Device> Device::open(std::shared_ptr<Driver> driver, int ordinal) {
  int count = 0;
  driver->call("counting GPUs", driver->cuDeviceGetCount, &count);
  if (ordinal >= count) throw Error(format("there is no GPU %d: the driver shows %d", ordinal, count));
  return std::shared_ptr<Device>(new Device(std::move(driver), ordinal));
}

Device::Device(std::shared_ptr<Driver> driver, int ordinal)
    : driver_(std::move(driver)), status_(describeDevice(*driver_, ordinal)), allocator_(*driver_), staging_(*driver_) {
  if (!status_.problem.empty()) throw Error(status_.problem);
  const std::string what = "opening GPU " + std::to_string(ordinal);
  driver_->call(what, driver_->cuDeviceGet, &handle_, ordinal);
  driver_->call(what, driver_->cuDevicePrimaryCtxRetain, &context_, handle_);
}

Device::~Device() {
  if (context_ == nullptr) return;
  // Nobody is left to tell about a failure here.
  if (driver_->cuCtxPushCurrent.address(context_) == CUDA_SUCCESS) {
    driver_->cuCtxSynchronize.address();
    staging_.release();
    allocator_.release();
    for (const auto& [name, module] : modules_) driver_->cuModuleUnload.address(module);
    CUcontext popped = nullptr;
    driver_->cuCtxPopCurrent.address(&popped);
  }
  driver_->cuDevicePrimaryCtxRelease.address(handle_);
}

Pool& Device::pool() {
  if (pool_ == nullptr) pool_ = std::make_unique<Pool>(std::max(1u, std::thread::hardware_concurrency()));
  return *pool_;
}

CUmodule Device::moduleOf(const std::string& kernel) {
  if (cubins().empty()) throw Error("kernel '" + kernel + "' can't be loaded: " + whyNoCubins());
  for (const Cubin& cubin : cubins()) {
    const auto isIt = [&](const KernelUse& use) { return kernel == use.name; };
    if (std::none_of(cubin.kernels.begin(), cubin.kernels.end(), isIt)) continue;
    CUmodule& module = modules_[cubin.name];
    if (module == nullptr) {
      const Current current(*this);
      driver_->call(std::string("loading the kernels of ") + cubin.name, driver_->cuModuleLoadData, &module, cubin.data);
    }
    return module;
  }
  throw Error("there is no kernel '" + kernel + "'");
}

Device::Current::Current(const Device& device, const char* what) : device_(device) {
  device.driver_->call(what, device.driver_->cuCtxPushCurrent, device.context_);
}

Device::Current::~Current() {
  CUcontext popped = nullptr;
  device_.driver_->cuCtxPopCurrent.address(&popped);
}

}  // namespace fireq::cuda
