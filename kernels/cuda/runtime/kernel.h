#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "stream.h"

namespace fireq::cuda {

struct LaunchShape {
  std::array<unsigned, 3> grid{1, 1, 1};
  std::array<unsigned, 3> block{1, 1, 1};
  unsigned cluster = 1;      // blocks a cluster, along x
  unsigned sharedBytes = 0;  // dynamic shared memory a block
  bool dependent = false;    // may start before the kernel before it ends; it waits with griddepcontrol.wait
};

/// One kernel of a loaded cubin.
class Kernel {
 public:
  static std::shared_ptr<Kernel> load(std::shared_ptr<Device> device, const std::string& name);

  /// `arguments`: each one's bytes, in order. Throws if they aren't of the sizes that the kernel takes.
  void launch(Stream& stream, const LaunchShape& shape, const std::vector<std::vector<char>>& arguments,
              const std::string& what);

  /// The bytes of a constant in the kernel's file.
  std::vector<char> constant(const std::string& name) const;

  Device& device() const { return *device_; }

 private:
  Kernel(std::shared_ptr<Device> device, std::string name) : device_(std::move(device)), name_(std::move(name)) {}

  void allowShared(unsigned bytes, const std::string& what);
  void checkArguments(const std::vector<std::vector<char>>& arguments, const std::string& what) const;

  const std::shared_ptr<Device> device_;
  const std::string name_;
  CUmodule module_ = nullptr;
  CUfunction handle_ = nullptr;
  bool knowsParameters_ = false;
  std::vector<size_t> parameterBytes_;
  unsigned allowedShared_ = 48 << 10;  // what every kernel may have without asking
};

}  // namespace fireq::cuda
