#pragma once

#include <napi.h>

namespace fireq::cuda {

/// Adds the functions that packages/kernels/src/cuda/addon-types.ts lists.
void defineFunctions(Napi::Object exports);

}  // namespace fireq::cuda
