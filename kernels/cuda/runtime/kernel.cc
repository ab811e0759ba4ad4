#include "kernel.h"

namespace fireq::cuda {

std::shared_ptr<Kernel> Kernel::load(std::shared_ptr<Device> device, const std::string& name) {
  std::shared_ptr<Kernel> kernel(new Kernel(std::move(device), name));
  kernel->module_ = kernel->device_->moduleOf(name);
  const Device::Current current(*kernel->device_);
  const Driver& d = kernel->device_->driver();
  d.call("looking up kernel " + name, d.cuModuleGetFunction, &kernel->handle_, kernel->module_, name.c_str());
  // Parameters can be counted since CUDA 12.4; the first index beyond them is an error.
  kernel->knowsParameters_ = d.cuFuncGetParamInfo.address != nullptr;
  if (kernel->knowsParameters_) {
    size_t offset = 0, bytes = 0;
    for (size_t i = 0; d.cuFuncGetParamInfo.address(kernel->handle_, i, &offset, &bytes) == CUDA_SUCCESS; i++) {
      kernel->parameterBytes_.push_back(bytes);
    }
  }
  return kernel;
}

std::vector<char> Kernel::constant(const std::string& name) const {
  const std::string what = "reading the constant " + name;
  const Device::Current current(*device_);
  const Driver& d = device_->driver();
  CUdeviceptr address = 0;
  size_t bytes = 0;
  d.call(what, d.cuModuleGetGlobal, &address, &bytes, module_, name.c_str());
  std::vector<char> value(bytes);
  d.call(what, d.cuMemcpyDtoH, value.data(), address, bytes);
  return value;
}

void Kernel::launch(Stream& stream, const LaunchShape& shape, const std::vector<std::vector<char>>& arguments,
                    const std::string& what) {
  if (&stream.device() != device_.get()) throw Error(what + ": the kernel is another device's than the stream");
  checkArguments(arguments, what);
  const Device::Current current(*device_);
  allowShared(shape.sharedBytes, what);

  CUlaunchAttribute attributes[2] = {};
  unsigned count = 0;
  if (shape.cluster > 1) {
    CUlaunchAttribute& attribute = attributes[count++];
    attribute.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
    attribute.value.clusterDim = {shape.cluster, 1, 1};
  }
  if (shape.dependent) {
    CUlaunchAttribute& attribute = attributes[count++];
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
  }
  const CUlaunchConfig config{shape.grid[0],     shape.grid[1],   shape.grid[2], shape.block[0], shape.block[1],
                              shape.block[2],    shape.sharedBytes, stream.handle(), attributes, count};
  std::vector<void*> pointers;
  for (const auto& argument : arguments) pointers.push_back(const_cast<char*>(argument.data()));
  const Driver& d = device_->driver();
  const CUresult result = d.cuLaunchKernelEx.address(&config, handle_, pointers.data(), nullptr);
  if (result != CUDA_SUCCESS) {
    throw d.failure(what + format(": kernel %s, grid %u × %u × %u, block %u × %u × %u, clusters of %u, %u bytes shared",
                                  name_.c_str(), shape.grid[0], shape.grid[1], shape.grid[2], shape.block[0],
                                  shape.block[1], shape.block[2], shape.cluster, shape.sharedBytes),
                    d.cuLaunchKernelEx.symbol, result);
  }
  stream.launched(what);
}

void Kernel::allowShared(unsigned bytes, const std::string& what) {
  if (bytes <= allowedShared_) return;
  const Driver& d = device_->driver();
  d.call(what + ": " + std::to_string(bytes) + " bytes of shared memory for " + name_, d.cuFuncSetAttribute, handle_,
         static_cast<int>(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), static_cast<int>(bytes));
  allowedShared_ = bytes;
}

void Kernel::checkArguments(const std::vector<std::vector<char>>& arguments, const std::string& what) const {
  if (!knowsParameters_) return;
  if (arguments.size() != parameterBytes_.size()) {
    throw Error(format("%s: kernel %s takes %zu arguments, but received %zu", what.c_str(), name_.c_str(),
                       parameterBytes_.size(), arguments.size()));
  }
  for (size_t i = 0; i < arguments.size(); i++) {
    if (arguments[i].size() != parameterBytes_[i]) {
      throw Error(format("%s: argument %zu of kernel %s has %zu bytes, but received %zu", what.c_str(), i, name_.c_str(),
                         parameterBytes_[i], arguments[i].size()));
    }
  }
}

}  // namespace fireq::cuda
