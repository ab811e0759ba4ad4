// The part of the CUDA driver API that the runtime uses, declared here so that the addon builds without the CUDA toolkit
// and loads without a driver. Names and values are cuda.h's; the symbols are those that libcuda.so.1 exports.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fireq::cuda {

using CUresult = int;
using CUdevice = int;
using CUdeviceptr = uint64_t;
using CUcontext = struct CUctx_st*;
using CUstream = struct CUstream_st*;
using CUevent = struct CUevent_st*;
using CUmodule = struct CUmod_st*;
using CUfunction = struct CUfunc_st*;
using CUgraph = struct CUgraph_st*;
using CUgraphExec = struct CUgraphExec_st*;

enum : CUresult {
  CUDA_SUCCESS = 0,
  CUDA_ERROR_OUT_OF_MEMORY = 2,
  CUDA_ERROR_NO_DEVICE = 100,
  CUDA_ERROR_NOT_READY = 600,
};

enum : int {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
  CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
  CU_STREAM_NON_BLOCKING = 1,
  CU_STREAM_CAPTURE_MODE_RELAXED = 2,
  CU_EVENT_DISABLE_TIMING = 2,
};

enum : int {
  CU_TENSOR_MAP_DATA_TYPE_UINT8 = 0,
  CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 = 9,
  CU_TENSOR_MAP_SWIZZLE_64B = 2,
  CU_TENSOR_MAP_SWIZZLE_128B = 3,
  CU_TENSOR_MAP_INTERLEAVE_NONE = 0,
  CU_TENSOR_MAP_L2_PROMOTION_L2_128B = 2,
  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0,
};

/// What the copy engine knows of a tensor; kernels take it by value.
struct alignas(64) CUtensorMap {
  char opaque[128];
};

enum CUlaunchAttributeID : int {
  CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION = 4,
  CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
};

struct CUlaunchAttribute {
  CUlaunchAttributeID id;
  char pad[4];
  union {
    char room[64];
    struct {
      unsigned x, y, z;
    } clusterDim;
    int programmaticStreamSerializationAllowed;
  } value;
};
static_assert(sizeof(CUlaunchAttribute) == 72);

struct CUlaunchConfig {
  unsigned gridDimX, gridDimY, gridDimZ;
  unsigned blockDimX, blockDimY, blockDimZ;
  unsigned sharedMemBytes;
  CUstream hStream;
  CUlaunchAttribute* attrs;
  unsigned numAttrs;
};

/// A driver function and the symbol it was found under.
template <class... Arguments>
struct Function {
  const char* symbol;
  CUresult (*address)(Arguments...) = nullptr;
};

/// Null until the driver is opened; see Driver.
struct Functions {
  Function<int*> cuDriverGetVersion{"cuDriverGetVersion"};
  Function<unsigned> cuInit{"cuInit"};
  Function<CUresult, const char**> cuGetErrorName{"cuGetErrorName"};
  Function<CUresult, const char**> cuGetErrorString{"cuGetErrorString"};

  Function<int*> cuDeviceGetCount{"cuDeviceGetCount"};
  Function<CUdevice*, int> cuDeviceGet{"cuDeviceGet"};
  Function<char*, int, CUdevice> cuDeviceGetName{"cuDeviceGetName"};
  Function<int*, int, CUdevice> cuDeviceGetAttribute{"cuDeviceGetAttribute"};
  Function<size_t*, CUdevice> cuDeviceTotalMem{"cuDeviceTotalMem_v2"};
  Function<CUcontext*, CUdevice> cuDevicePrimaryCtxRetain{"cuDevicePrimaryCtxRetain"};
  Function<CUdevice> cuDevicePrimaryCtxRelease{"cuDevicePrimaryCtxRelease_v2"};
  Function<CUcontext> cuCtxPushCurrent{"cuCtxPushCurrent_v2"};
  Function<CUcontext*> cuCtxPopCurrent{"cuCtxPopCurrent_v2"};
  Function<> cuCtxSynchronize{"cuCtxSynchronize"};

  Function<size_t*, size_t*> cuMemGetInfo{"cuMemGetInfo_v2"};
  Function<CUdeviceptr*, size_t> cuMemAlloc{"cuMemAlloc_v2"};
  Function<CUdeviceptr> cuMemFree{"cuMemFree_v2"};
  Function<void**, size_t> cuMemAllocHost{"cuMemAllocHost_v2"};
  Function<void*> cuMemFreeHost{"cuMemFreeHost"};
  Function<CUdeviceptr, const void*, size_t, CUstream> cuMemcpyHtoDAsync{"cuMemcpyHtoDAsync_v2"};
  Function<void*, CUdeviceptr, size_t, CUstream> cuMemcpyDtoHAsync{"cuMemcpyDtoHAsync_v2"};
  Function<CUdeviceptr, CUdeviceptr, size_t, CUstream> cuMemcpyDtoDAsync{"cuMemcpyDtoDAsync_v2"};
  Function<void*, CUdeviceptr, size_t> cuMemcpyDtoH{"cuMemcpyDtoH_v2"};
  Function<CUdeviceptr, unsigned char, size_t, CUstream> cuMemsetD8Async{"cuMemsetD8Async"};

  Function<CUstream*, unsigned> cuStreamCreate{"cuStreamCreate"};
  Function<CUstream> cuStreamDestroy{"cuStreamDestroy_v2"};
  Function<CUstream> cuStreamSynchronize{"cuStreamSynchronize"};
  Function<CUstream, CUevent, unsigned> cuStreamWaitEvent{"cuStreamWaitEvent"};
  Function<CUstream, int> cuStreamBeginCapture{"cuStreamBeginCapture_v2"};
  Function<CUstream, CUgraph*> cuStreamEndCapture{"cuStreamEndCapture"};
  Function<CUevent*, unsigned> cuEventCreate{"cuEventCreate"};
  Function<CUevent> cuEventDestroy{"cuEventDestroy_v2"};
  Function<CUevent, CUstream> cuEventRecord{"cuEventRecord"};
  Function<CUevent> cuEventQuery{"cuEventQuery"};
  Function<CUevent> cuEventSynchronize{"cuEventSynchronize"};
  Function<float*, CUevent, CUevent> cuEventElapsedTime{"cuEventElapsedTime"};

  Function<CUgraphExec*, CUgraph, unsigned long long> cuGraphInstantiate{"cuGraphInstantiateWithFlags"};
  Function<CUgraphExec, CUstream> cuGraphLaunch{"cuGraphLaunch"};
  Function<CUgraph> cuGraphDestroy{"cuGraphDestroy"};
  Function<CUgraphExec> cuGraphExecDestroy{"cuGraphExecDestroy"};

  Function<CUmodule*, const void*> cuModuleLoadData{"cuModuleLoadData"};
  Function<CUmodule> cuModuleUnload{"cuModuleUnload"};
  Function<CUfunction*, CUmodule, const char*> cuModuleGetFunction{"cuModuleGetFunction"};
  Function<CUdeviceptr*, size_t*, CUmodule, const char*> cuModuleGetGlobal{"cuModuleGetGlobal_v2"};
  Function<CUfunction, int, int> cuFuncSetAttribute{"cuFuncSetAttribute"};
  Function<CUfunction, size_t, size_t*, size_t*> cuFuncGetParamInfo{"cuFuncGetParamInfo"};  // since CUDA 12.4
  Function<CUtensorMap*, int, uint32_t, void*, const uint64_t*, const uint64_t*, const uint32_t*, const uint32_t*, int,
           int, int, int>
      cuTensorMapEncodeTiled{"cuTensorMapEncodeTiled"};
  Function<const CUlaunchConfig*, CUfunction, void**, void**> cuLaunchKernelEx{"cuLaunchKernelEx"};
};

}  // namespace fireq::cuda
