#pragma once

#include <memory>
#include <string>
#include <utility>

#include "../../cpu/core/error.h"
#include "driver_api.h"

namespace fireq::cuda {

/// Failures after which a device's context answers every call with the same error.
bool isSticky(CUresult result);

/// "12.4" of 12040.
std::string versionText(int version);

/// An open libcuda.so.1, initialized. It is never closed: the driver has threads of its own.
class Driver : public Functions {
 public:
  /// The oldest CUDA version whose driver runs this build's kernels: the toolkit's major version, since cubins run on
  /// every driver of theirs, and 12.0 at least, the first that knows sm_90a.
  static int neededVersion();

  /// Throws Error that says what is missing: the library, a recent enough version, a symbol, a device.
  static std::shared_ptr<Driver> open(const std::string& library);

  int version() const { return version_; }

  /// Calls a driver function; a failure is an Error: what was being done, the call, the error's name and text.
  template <class... Parameters, class... Arguments>
  void call(const std::string& what, const Function<Parameters...>& function, Arguments&&... arguments) const {
    const CUresult result = function.address(std::forward<Arguments>(arguments)...);
    if (result != CUDA_SUCCESS) throw failure(what, function.symbol, result);
  }

  Error failure(const std::string& what, const char* symbol, CUresult result) const;

 private:
  Driver() = default;

  int version_ = 0;
};

/// The version of the kernel's NVIDIA module ("580.95.05"), or empty.
std::string driverRelease();

}  // namespace fireq::cuda
