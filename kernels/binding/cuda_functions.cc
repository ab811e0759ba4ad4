#include "cuda_functions.h"

#include <cstring>

#include "../cuda/runtime/cubins.h"
#include "cuda_handles.h"
#include "cuda_launch.h"
#include "cuda_pack.h"
#include "cuda_wait.h"
#include "define.h"

namespace fireq {

FIREQ_HANDLE(cuda::Device, "CUDA device", 0x52d90be6a1f74c38, 0xb7c3148e60da9f25)
FIREQ_HANDLE(cuda::Stream, "CUDA stream", 0x9e14c7035b8f4d62, 0x8d60fa2b9c17e354)
FIREQ_HANDLE(cuda::Event, "CUDA event", 0x2b7fd4e1980c4a56, 0xa93c5e7210fb84d6)
FIREQ_HANDLE(cuda::Buffer, "CUDA buffer", 0xe05a6c91d32b47f8, 0x94e7d01fb8253c6a)
FIREQ_HANDLE(cuda::Kernel, "CUDA kernel", 0x6fc82e0d75a9413b, 0xb1049d3ae67f52c8)
FIREQ_HANDLE(cuda::Graph, "CUDA graph", 0xd7310fa94ce6428e, 0x85b26e09f1d473ac)

namespace cuda {

namespace {

using Info = Napi::CallbackInfo;

Napi::Number number(Napi::Env env, double value) { return Napi::Number::New(env, value); }

Napi::Object describe(Napi::Env env, const DeviceStatus& status) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("ordinal", status.ordinal);
  result.Set("name", status.name);
  result.Set("computeCapability", std::to_string(status.major) + "." + std::to_string(status.minor));
  result.Set("multiprocessors", status.multiprocessors);
  result.Set("totalBytes", number(env, static_cast<double>(status.totalBytes)));
  result.Set("problem", status.problem);
  return result;
}

/// cudaStatus(library)
Napi::Value status(const Info& info) {
  const Napi::Env env = info.Env();
  const Status found = statusOf(string(info[0], "the driver library"));
  Napi::Object result = Napi::Object::New(env);
  result.Set("problem", found.problem);
  result.Set("driverVersion", found.driverVersion > 0 ? versionText(found.driverVersion) : "");
  result.Set("driverRelease", driverRelease());
  result.Set("toolkitVersion", toolkitVersion() > 0 ? versionText(toolkitVersion()) : "");
  Napi::Array devices = Napi::Array::New(env);
  for (const DeviceStatus& device : found.devices) devices.Set(devices.Length(), describe(env, device));
  result.Set("devices", devices);
  return result;
}

/// cudaKernels(): { file, name, registers }[]
Napi::Value kernels(const Info& info) {
  Napi::Array result = Napi::Array::New(info.Env());
  for (const Cubin& cubin : cubins()) {
    for (const KernelUse& use : cubin.kernels) {
      Napi::Object entry = Napi::Object::New(info.Env());
      entry.Set("file", cubin.name);
      entry.Set("name", use.name);
      entry.Set("registers", use.registers);
      result.Set(result.Length(), entry);
    }
  }
  return result;
}

/// cudaOpenDevice(library, ordinal): device
Napi::Value openDevice(const Info& info) {
  const int64_t ordinal = whole(info[1], "the GPU's number");
  if (ordinal > 1024) throw Error("there is no GPU " + std::to_string(ordinal));
  return makeHandle(info.Env(),
                    Device::open(Driver::open(string(info[0], "the driver library")), static_cast<int>(ordinal)));
}

/// cudaDescribe(device)
Napi::Value describeHandle(const Info& info) { return describe(info.Env(), held<Device>(info[0])->status()); }

/// cudaMemory(device)
Napi::Value memory(const Info& info) {
  const MemoryStatistics& statistics = held<Device>(info[0])->allocator().statistics();
  Napi::Object result = Napi::Object::New(info.Env());
  const auto set = [&](const char* name, auto value) {
    result.Set(name, number(info.Env(), static_cast<double>(value)));
  };
  set("allocated", statistics.allocated);
  set("reserved", statistics.reserved);
  set("peakAllocated", statistics.peakAllocated);
  set("peakReserved", statistics.peakReserved);
  set("blocks", statistics.blocks);
  set("allocations", statistics.allocations);
  set("driverAllocations", statistics.driverAllocations);
  set("retries", statistics.retries);
  return result;
}

/// cudaTrim(device): bytes given back
Napi::Value trim(const Info& info) {
  const auto device = held<Device>(info[0]);
  const Device::Current current(*device);
  return number(info.Env(), static_cast<double>(device->allocator().trim()));
}

/// cudaStream(device): stream
Napi::Value createStream(const Info& info) { return makeHandle(info.Env(), Stream::create(held<Device>(info[0]))); }

/// cudaAllocate(stream, bytes, what): buffer
Napi::Value allocate(const Info& info) {
  const int64_t bytes = whole(info[1], "bytes");
  return makeHandle(info.Env(), Buffer::allocate(held<Stream>(info[0]), static_cast<size_t>(bytes),
                                                 string(info[2], "what the memory is for")));
}

/// cudaFill(stream, buffer, offset, bytes, value, what)
Napi::Value fill(const Info& info) {
  const int64_t value = whole(info[4], "the byte to fill with");
  if (value > 255) throw Error("expected a byte to fill with");
  held<Stream>(info[0])->fill(held<Buffer>(info[1]), static_cast<size_t>(whole(info[2], "offset")),
                              static_cast<size_t>(whole(info[3], "bytes")), static_cast<unsigned char>(value),
                              string(info[5], "what is filled"));
  return info.Env().Undefined();
}

/// cudaCopy(stream, from, fromOffset, to, toOffset, bytes, what)
Napi::Value copy(const Info& info) {
  held<Stream>(info[0])->copy(held<Buffer>(info[1]), static_cast<size_t>(whole(info[2], "fromOffset")),
                              held<Buffer>(info[3]), static_cast<size_t>(whole(info[4], "toOffset")),
                              static_cast<size_t>(whole(info[5], "bytes")), string(info[6], "what is copied"));
  return info.Env().Undefined();
}

/// cudaUpload(stream, from: Uint8Array, buffer, offset, what): at most cudaChunkBytes; copies before it returns
Napi::Value upload(const Info& info) {
  const Elements from = elements(info[1], napi_uint8_array, "the data to upload");
  held<Stream>(info[0])->upload(from.data, from.bytes, held<Buffer>(info[2]),
                                static_cast<size_t>(whole(info[3], "offset")), string(info[4], "what is uploaded"));
  return info.Env().Undefined();
}

/// cudaDownload(stream, buffer, offset, into: Uint8Array, what): Promise; at most cudaChunkBytes
Napi::Value download(const Info& info) {
  const auto stream = held<Stream>(info[0]);
  const size_t bytes = elements(info[3], napi_uint8_array, "the array to download into").bytes;
  Staging::Chunk& chunk = stream->download(held<Buffer>(info[1]), static_cast<size_t>(whole(info[2], "offset")), bytes,
                                           string(info[4], "what is downloaded"));
  auto into = std::make_shared<Napi::ObjectReference>(Napi::Persistent(info[3].As<Napi::Object>()));
  const auto whenDone = [&chunk, into, bytes](bool reached) {
    chunk.isHeld = false;
    if (!reached) return;
    const Elements target = elements(into->Value(), napi_uint8_array, "the array to download into");
    if (target.bytes != bytes) throw Error("the array to download into has changed its length");
    std::memcpy(target.data, chunk.data, bytes);
  };
  try {
    return waitForStream(info.Env(), stream, whenDone);
  } catch (...) {
    chunk.isHeld = false;
    throw;
  }
}

/// cudaSynchronize(stream): Promise
Napi::Value synchronize(const Info& info) { return waitForStream(info.Env(), held<Stream>(info[0])); }

/// cudaRecord(stream): event
Napi::Value record(const Info& info) {
  const auto stream = held<Stream>(info[0]);
  auto event = Event::create(stream->device().shared_from_this());
  stream->record(*event);
  return makeHandle(info.Env(), std::move(event));
}

/// cudaWaitFor(stream, event)
Napi::Value waitFor(const Info& info) {
  held<Stream>(info[0])->waitFor(*held<Event>(info[1]));
  return info.Env().Undefined();
}

/// cudaElapsed(start, end): milliseconds
Napi::Value elapsed(const Info& info) {
  return number(info.Env(), held<Event>(info[1])->since(*held<Event>(info[0])));
}

/// cudaBeginCapture(stream)
Napi::Value beginCapture(const Info& info) {
  held<Stream>(info[0])->beginCapture();
  return info.Env().Undefined();
}

/// cudaEndCapture(stream): graph
Napi::Value endCapture(const Info& info) { return makeHandle(info.Env(), held<Stream>(info[0])->endCapture()); }

/// cudaReplay(stream, graph, what)
Napi::Value replay(const Info& info) {
  held<Stream>(info[0])->replay(*held<Graph>(info[1]), string(info[2], "what is replayed"));
  return info.Env().Undefined();
}

template <class T>
bool giveUp(const Napi::Value& handle) {
  auto* share = shareOf<T>(handle);
  if (share != nullptr) share->reset();
  return share != nullptr;
}

/// cudaRelease(handle): gives up what a handle holds; twice is fine
Napi::Value release(const Info& info) {
  const Napi::Value handle = info[0];
  if (!(giveUp<Buffer>(handle) || giveUp<Event>(handle) || giveUp<Graph>(handle) || giveUp<Kernel>(handle) ||
        giveUp<Stream>(handle) || giveUp<Device>(handle))) {
    throw Error("expected a CUDA handle");
  }
  return info.Env().Undefined();
}

}  // namespace

void defineFunctions(Napi::Object exports) {
  exports.Set("cudaChunkBytes", static_cast<double>(Staging::kChunkBytes));
  exports.Set("cudaWhyNoKernels", whyNoCubins());
  defineLaunchFunctions(exports);
  define<status>(exports, "cudaStatus");
  define<kernels>(exports, "cudaKernels");
  define<openDevice>(exports, "cudaOpenDevice");
  define<describeHandle>(exports, "cudaDescribe");
  define<memory>(exports, "cudaMemory");
  define<trim>(exports, "cudaTrim");
  define<createStream>(exports, "cudaStream");
  define<allocate>(exports, "cudaAllocate");
  define<fill>(exports, "cudaFill");
  define<copy>(exports, "cudaCopy");
  define<upload>(exports, "cudaUpload");
  define<download>(exports, "cudaDownload");
  define<synchronize>(exports, "cudaSynchronize");
  define<record>(exports, "cudaRecord");
  define<waitFor>(exports, "cudaWaitFor");
  define<elapsed>(exports, "cudaElapsed");
  define<uploadInt4>(exports, "cudaUploadInt4");
  define<beginCapture>(exports, "cudaBeginCapture");
  define<endCapture>(exports, "cudaEndCapture");
  define<replay>(exports, "cudaReplay");
  define<release>(exports, "cudaRelease");
}

}  // namespace cuda

}  // namespace fireq
