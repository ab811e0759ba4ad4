#pragma once

#include <napi.h>

namespace fireq::cuda {

/// Adds the functions about kernels: loading, launching, choosing.
void defineLaunchFunctions(Napi::Object exports);

}  // namespace fireq::cuda
