#pragma once

// The CUDA objects that JavaScript holds; defined in cuda_functions.cc.

#include "../cuda/runtime/kernel.h"
#include "values.h"

#define FIREQ_DECLARE_HANDLE(type)            \
  template <>                                 \
  const napi_type_tag& tagOf<cuda::type>();   \
  template <>                                 \
  const char* kindOf<cuda::type>();

namespace fireq {

FIREQ_DECLARE_HANDLE(Device)
FIREQ_DECLARE_HANDLE(Stream)
FIREQ_DECLARE_HANDLE(Event)
FIREQ_DECLARE_HANDLE(Buffer)
FIREQ_DECLARE_HANDLE(Kernel)
FIREQ_DECLARE_HANDLE(Graph)

}  // namespace fireq
