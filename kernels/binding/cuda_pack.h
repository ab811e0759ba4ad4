#pragma once

#include <napi.h>

namespace fireq::cuda {

/// cudaUploadInt4(stream, slab, format, to, offset, what): Promise for { needsFull, needsFp32 } as a bit each; see
/// packages/kernels/src/cuda/addon-types.ts. Packs on another thread.
Napi::Value uploadInt4(const Napi::CallbackInfo& info);

}  // namespace fireq::cuda
