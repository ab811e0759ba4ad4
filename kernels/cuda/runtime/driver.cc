#include "driver.h"

#include <dlfcn.h>

#include <algorithm>
#include <fstream>

#include "cubins.h"

namespace fireq::cuda {

namespace {

constexpr int kFirstWithSm90a = 12000;

template <class... Arguments>
bool resolve(void* library, Function<Arguments...>& function) {
  function.address = reinterpret_cast<CUresult (*)(Arguments...)>(dlsym(library, function.symbol));
  return function.address != nullptr;
}

/// Throws unless every one of `functions` is there.
template <class... Functions>
void resolveAll(void* library, const std::string& where, Functions&... functions) {
  const auto one = [&](auto& function) {
    if (!resolve(library, function)) throw Error(where + " has no " + function.symbol);
  };
  (one(functions), ...);
}

}  // namespace

bool isSticky(CUresult result) {
  switch (result) {
    case 214:  // uncorrectable ECC error
    case 220:  // uncorrectable NVLink error
    case 700:  // illegal address
    case 702:  // launch timeout
    case 709:  // context destroyed
    case 710:  // device-side assertion
    case 714:  // hardware stack error
    case 715:  // illegal instruction
    case 716:  // misaligned address
    case 717:  // invalid address space
    case 718:  // invalid program counter
    case 719:  // launch failed
      return true;
    default:
      return false;
  }
}

std::string versionText(int version) { return format("%d.%d", version / 1000, version % 1000 / 10); }

std::string driverRelease() {
  std::ifstream file("/sys/module/nvidia/version");
  std::string release;
  std::getline(file, release);
  return release;
}

int Driver::neededVersion() { return std::max(kFirstWithSm90a, toolkitVersion() / 1000 * 1000); }

std::shared_ptr<Driver> Driver::open(const std::string& name) {
  void* library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw Error(std::string("no NVIDIA driver: ") + dlerror());
  std::shared_ptr<Driver> driver(new Driver);
  Driver& d = *driver;
  resolveAll(library, name, d.cuDriverGetVersion, d.cuGetErrorName, d.cuGetErrorString, d.cuInit);
  d.call("asking for the driver's version", d.cuDriverGetVersion, &d.version_);
  if (d.version_ < neededVersion()) {
    const std::string release = driverRelease();
    const int toolkit = toolkitVersion();
    throw Error("the NVIDIA driver" + (release.empty() ? "" : " " + release) + " is too old: it supports CUDA " +
                versionText(d.version_) + ", but " +
                (toolkit > 0 ? "the kernels, built with CUDA " + versionText(toolkit) + "," : "Hopper's kernels") +
                " need a driver for CUDA " + versionText(neededVersion()) + " or later");
  }
  resolveAll(library, name, d.cuDeviceGetCount, d.cuDeviceGet, d.cuDeviceGetName, d.cuDeviceGetAttribute,
             d.cuDeviceTotalMem, d.cuDevicePrimaryCtxRetain, d.cuDevicePrimaryCtxRelease, d.cuCtxPushCurrent,
             d.cuCtxPopCurrent, d.cuCtxSynchronize, d.cuMemGetInfo, d.cuMemAlloc, d.cuMemFree, d.cuMemAllocHost,
             d.cuMemFreeHost, d.cuMemcpyHtoDAsync, d.cuMemcpyDtoHAsync, d.cuMemcpyDtoDAsync, d.cuMemsetD8Async,
             d.cuStreamCreate, d.cuStreamDestroy, d.cuStreamSynchronize, d.cuStreamWaitEvent, d.cuStreamBeginCapture,
             d.cuStreamEndCapture, d.cuEventCreate, d.cuEventDestroy, d.cuEventRecord, d.cuEventQuery,
             d.cuEventSynchronize, d.cuEventElapsedTime, d.cuGraphInstantiate, d.cuGraphLaunch, d.cuGraphDestroy,
             d.cuGraphExecDestroy, d.cuModuleLoadData, d.cuModuleUnload, d.cuModuleGetFunction, d.cuModuleGetGlobal,
             d.cuMemcpyDtoH, d.cuFuncSetAttribute, d.cuTensorMapEncodeTiled, d.cuLaunchKernelEx);
  resolve(library, d.cuFuncGetParamInfo);
  d.call("starting the NVIDIA driver", d.cuInit, 0u);
  return driver;
}

Error Driver::failure(const std::string& what, const char* symbol, CUresult result) const {
  const char *name = nullptr, *text = nullptr;
  if (cuGetErrorName.address(result, &name) != CUDA_SUCCESS || name == nullptr) name = "an unknown error";
  if (cuGetErrorString.address(result, &text) != CUDA_SUCCESS || text == nullptr) text = "the driver has no text for it";
  std::string message = what + ": " + symbol + " failed with " + name + " (" + std::to_string(result) + "): " + text;
  if (isSticky(result)) message += "; this process can't use the device any more";
  return Error(message);
}

}  // namespace fireq::cuda
