// The kernels in this build. The definitions are generated (see ../embed.cmake).
#pragma once

#include <cstddef>
#include <span>

namespace fireq::cuda {

/// What ptxas said about one kernel.
struct KernelUse {
  const char* name;
  int registers;  // a thread
};

/// The machine code of one file of kernels, for sm_90a.
struct Cubin {
  const char* name;
  const unsigned char* data;
  std::span<const KernelUse> kernels;
};

/// Empty if the addon was built without nvcc.
std::span<const Cubin> cubins();
/// The toolkit that built them, 13000 for CUDA 13.0; 0 if there are none.
int toolkitVersion();
/// Why there are none; empty if there are.
const char* whyNoCubins();

}  // namespace fireq::cuda
