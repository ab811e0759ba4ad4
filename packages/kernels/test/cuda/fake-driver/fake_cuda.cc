// A driver library without a GPU: device memory is host memory, copies and fills run at once, kernels only count. What it
// pretends to be, which call fails, and what is alive is in the file `state` beside it, mapped into memory, so that a test
// sees and changes it at any time. It checks its callers: a missing context, an unknown handle, bytes outside an
// allocation are errors, as they are on a device.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace {

// Kept in step with fake-driver.ts.
struct State {
  int64_t version, major, minor, devices, memory, initResult;
  int64_t failCode, failSkip;  // `failing` fails with failCode, after failSkip calls that don't
  int64_t holdEvents;          // events aren't reached until someone waits for them
  int64_t parameters, parameterBytes[8];
  int64_t allocations, allocatedBytes, pinned, events, streams, graphs, modules, contexts;  // alive
  int64_t driverAllocations, launches, faults;                                             // so far
  int64_t grid[3], block[3], sharedBytes, cluster, dependent, maxShared;                   // of the last launch
  char arguments[512];                                                                     // its first ones, in a row
  char failing[64];
};

struct Graph {
  std::vector<std::function<void()>> work;
};
struct Stream {
  Graph* capture = nullptr;
};

State* state = nullptr;
std::recursive_mutex mutex;
std::map<uint64_t, size_t> allocations;
std::set<const void*> alive;
thread_local std::vector<void*> contexts;
int device = 0;

__attribute__((constructor)) void load() {
  Dl_info info;
  dladdr(reinterpret_cast<void*>(&load), &info);
  std::string path = info.dli_fname;
  path = path.substr(0, path.rfind('/')) + "/state";
  const int file = open(path.c_str(), O_RDWR);
  if (file < 0) abort();
  state = static_cast<State*>(mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  close(file);
}

constexpr int kInvalidValue = 1, kOutOfMemory = 2, kNoContext = 201, kInvalidHandle = 400, kNotReady = 600,
              kIllegalAddress = 700, kCaptureUnsupported = 900;

int fault(int code) {
  state->faults++;
  return code;
}

/// The result that this call was told to give, or 0.
int told(const char* name) {
  if (state->failCode == 0 || std::strcmp(name, state->failing) != 0) return 0;
  if (state->failSkip > 0) return state->failSkip--, 0;
  return static_cast<int>(state->failCode);
}

#define CALL(name)                                       \
  const std::lock_guard<std::recursive_mutex> lock(mutex); \
  if (const int result = told(#name); result != 0) return result;
#define NEEDS_CONTEXT                          \
  if (contexts.empty()) return fault(kNoContext);
#define NEEDS(handle)                                   \
  if (alive.count(handle) == 0) return fault(kInvalidHandle);

template <class T>
T* make(int64_t& count) {
  T* made = new T();
  alive.insert(made);
  count++;
  return made;
}

template <class T>
int destroy(T* handle, int64_t& count) {
  NEEDS(handle)
  alive.erase(handle);
  delete handle;
  count--;
  return 0;
}

bool isInside(uint64_t address, size_t bytes) {
  auto after = allocations.upper_bound(address);
  if (after == allocations.begin()) return false;
  const auto& [start, size] = *--after;
  return address + bytes <= start + size;
}

/// Runs now, or later if the stream captures.
int enqueue(Stream* stream, std::function<void()> work) {
  NEEDS(stream)
  if (stream->capture != nullptr) {
    stream->capture->work.push_back(std::move(work));
  } else {
    work();
  }
  return 0;
}

struct Event {
  bool isPending = false;
};

void* at(uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int cuDriverGetVersion(int* version) {
  CALL(cuDriverGetVersion)
  *version = static_cast<int>(state->version);
  return 0;
}
EXPORT int cuInit(unsigned) { return static_cast<int>(state->initResult); }
EXPORT int cuGetErrorName(int code, const char** name) {
  static const std::map<int, const char*> names{
      {1, "CUDA_ERROR_INVALID_VALUE"},   {2, "CUDA_ERROR_OUT_OF_MEMORY"},   {100, "CUDA_ERROR_NO_DEVICE"},
      {201, "CUDA_ERROR_INVALID_CONTEXT"}, {400, "CUDA_ERROR_INVALID_HANDLE"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"}};
  const auto found = names.find(code);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? kInvalidValue : 0;
}
EXPORT int cuGetErrorString(int code, const char** text) {
  *text = code == 700 ? "an illegal memory access was encountered" : "the fake driver was told so";
  return 0;
}

EXPORT int cuDeviceGetCount(int* count) {
  CALL(cuDeviceGetCount)
  *count = static_cast<int>(state->devices);
  return 0;
}
EXPORT int cuDeviceGet(int* handle, int ordinal) {
  CALL(cuDeviceGet)
  *handle = ordinal;
  return ordinal < state->devices ? 0 : fault(101);
}
EXPORT int cuDeviceGetName(char* name, int length, int) {
  std::strncpy(name, "Fake GPU", length);
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = static_cast<int>(attribute == 75 ? state->major : attribute == 76 ? state->minor : 132);
  return 0;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = state->memory;
  return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  CALL(cuDevicePrimaryCtxRetain)
  state->contexts++;
  *context = &device;
  return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
  CALL(cuDevicePrimaryCtxRelease_v2)
  state->contexts--;
  return 0;
}
EXPORT int cuCtxPushCurrent_v2(void* context) {
  CALL(cuCtxPushCurrent_v2)
  contexts.push_back(context);
  return 0;
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
  NEEDS_CONTEXT
  *context = contexts.back();
  contexts.pop_back();
  return 0;
}
EXPORT int cuCtxSynchronize() {
  CALL(cuCtxSynchronize)
  NEEDS_CONTEXT
  return 0;
}

EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  NEEDS_CONTEXT
  *free = state->memory - state->allocatedBytes;
  *total = state->memory;
  return 0;
}
EXPORT int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  CALL(cuMemAlloc_v2)
  NEEDS_CONTEXT
  if (state->allocatedBytes + static_cast<int64_t>(bytes) > state->memory) return kOutOfMemory;
  *address = reinterpret_cast<uint64_t>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  allocations[*address] = bytes;
  state->allocations++;
  state->driverAllocations++;
  state->allocatedBytes += bytes;
  return 0;
}
EXPORT int cuMemFree_v2(uint64_t address) {
  CALL(cuMemFree_v2)
  NEEDS_CONTEXT
  const auto found = allocations.find(address);
  if (found == allocations.end()) return fault(kInvalidValue);
  state->allocations--;
  state->allocatedBytes -= found->second;
  allocations.erase(found);
  std::free(at(address));
  return 0;
}
EXPORT int cuMemAllocHost_v2(void** data, size_t bytes) {
  CALL(cuMemAllocHost_v2)
  NEEDS_CONTEXT
  *data = std::malloc(bytes);
  state->pinned++;
  return 0;
}
EXPORT int cuMemFreeHost(void* data) {
  CALL(cuMemFreeHost)
  std::free(data);
  state->pinned--;
  return 0;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
  CALL(cuMemcpyHtoDAsync_v2)
  NEEDS_CONTEXT
  if (!isInside(to, bytes)) return fault(kIllegalAddress);
  return enqueue(stream, [=] { std::memcpy(at(to), from, bytes); });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
  CALL(cuMemcpyDtoHAsync_v2)
  NEEDS_CONTEXT
  if (!isInside(from, bytes)) return fault(kIllegalAddress);
  return enqueue(stream, [=] { std::memcpy(to, at(from), bytes); });
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
  CALL(cuMemcpyDtoDAsync_v2)
  NEEDS_CONTEXT
  if (!isInside(to, bytes) || !isInside(from, bytes)) return fault(kIllegalAddress);
  return enqueue(stream, [=] { std::memcpy(at(to), at(from), bytes); });
}
EXPORT int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
  CALL(cuMemcpyDtoH_v2)
  NEEDS_CONTEXT
  std::memcpy(to, at(from), bytes);
  return 0;
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, Stream* stream) {
  CALL(cuMemsetD8Async)
  NEEDS_CONTEXT
  if (!isInside(to, bytes)) return fault(kIllegalAddress);
  return enqueue(stream, [=] { std::memset(at(to), value, bytes); });
}

EXPORT int cuStreamCreate(Stream** stream, unsigned) {
  CALL(cuStreamCreate)
  NEEDS_CONTEXT
  *stream = make<Stream>(state->streams);
  return 0;
}
EXPORT int cuStreamDestroy_v2(Stream* stream) {
  CALL(cuStreamDestroy_v2)
  return destroy(stream, state->streams);
}
EXPORT int cuStreamSynchronize(Stream* stream) {
  CALL(cuStreamSynchronize)
  NEEDS(stream)
  return stream->capture != nullptr ? fault(kCaptureUnsupported) : 0;
}
EXPORT int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
  CALL(cuStreamWaitEvent)
  NEEDS(stream)
  NEEDS(event)
  return 0;
}
EXPORT int cuStreamBeginCapture_v2(Stream* stream, int) {
  CALL(cuStreamBeginCapture_v2)
  NEEDS(stream)
  stream->capture = make<Graph>(state->graphs);
  return 0;
}
EXPORT int cuStreamEndCapture(Stream* stream, Graph** graph) {
  CALL(cuStreamEndCapture)
  NEEDS(stream)
  *graph = stream->capture;
  stream->capture = nullptr;
  return 0;
}
EXPORT int cuEventCreate(Event** event, unsigned) {
  CALL(cuEventCreate)
  NEEDS_CONTEXT
  *event = make<Event>(state->events);
  return 0;
}
EXPORT int cuEventDestroy_v2(Event* event) {
  CALL(cuEventDestroy_v2)
  return destroy(event, state->events);
}
EXPORT int cuEventRecord(Event* event, Stream* stream) {
  CALL(cuEventRecord)
  NEEDS(event)
  NEEDS(stream)
  if (stream->capture != nullptr) return fault(kCaptureUnsupported);
  event->isPending = state->holdEvents != 0;
  return 0;
}
EXPORT int cuEventQuery(Event* event) {
  CALL(cuEventQuery)
  NEEDS(event)
  return event->isPending && state->holdEvents != 0 ? kNotReady : 0;
}
EXPORT int cuEventSynchronize(Event* event) {
  CALL(cuEventSynchronize)
  NEEDS(event)
  event->isPending = false;
  return 0;
}
EXPORT int cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
  CALL(cuEventElapsedTime)
  NEEDS(start)
  NEEDS(end)
  *milliseconds = 1.5f;
  return 0;
}

EXPORT int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
  CALL(cuGraphInstantiateWithFlags)
  NEEDS(graph)
  *executable = make<Graph>(state->graphs);
  **executable = *graph;
  return 0;
}
EXPORT int cuGraphLaunch(Graph* graph, Stream* stream) {
  CALL(cuGraphLaunch)
  NEEDS_CONTEXT
  NEEDS(graph)
  NEEDS(stream)
  for (const auto& work : graph->work) work();
  return 0;
}
EXPORT int cuGraphDestroy(Graph* graph) { return destroy(graph, state->graphs); }
EXPORT int cuGraphExecDestroy(Graph* graph) { return destroy(graph, state->graphs); }

EXPORT int cuModuleLoadData(int** module, const void* image) {
  CALL(cuModuleLoadData)
  NEEDS_CONTEXT
  if (std::memcmp(image, "\177ELF", 4) != 0) return fault(200);
  *module = make<int>(state->modules);
  return 0;
}
EXPORT int cuModuleUnload(int* module) { return destroy(module, state->modules); }
// A kernel is its module, and its parameters are what the test says. Where that is one struct, as GEMMs take, these kernels have
// parameters of their own.
struct Signature {
  const char* name;  // begins so
  std::vector<int64_t> bytes;
};
static const Signature kSignatures[] = {
    {"read_memory", {8, 4, 4, 8}}, {"quantize_tokens_", {8, 8, 8, 4}}, {"rms_norm_quantize_", {8, 8, 4, 8, 8, 4, 4}},
    {"attention_store_", {88}},    {"attention_decode_", {104}},        {"attention_tiles_", {40}},
    {"attention_prefill_", {56}},  {"attention_tiles_chunk_", {56}},    {"attention_prefill_bf16_", {64}}};  // the last one that fits counts
static std::vector<int64_t> parametersOf(const void* function) {
  for (const Signature& known : kSignatures)
    if (function == &known && state->parameters == 1) return known.bytes;
  return {state->parameterBytes, state->parameterBytes + state->parameters};
}
EXPORT int cuModuleGetFunction(const void** function, int* module, const char* name) {
  CALL(cuModuleGetFunction)
  NEEDS(module)
  *function = module;
  for (const Signature& known : kSignatures)
    if (std::strncmp(name, known.name, std::strlen(known.name)) == 0) *function = &known;
  return 0;
}
// kernels/cuda/attention_info.h, by how names begin.
struct Info {
  const char* name;
  int32_t values[5];
};
static Info kAttentionInfos[] = {{"attention_store_", {128, 16384, 8, 4, 0}},
                                 {"attention_decode_q8", {128, 67584, 0, 8, 8320}},
                                 {"attention_decode_q16", {128, 67584, 0, 16, 8320}},
                                 {"attention_tiles_", {128, 52000, 0, 0, 33792}},
                                 {"attention_prefill_bf16_", {256, 140000, 0, 112, 0}},
                                 {"attention_prefill_", {384, 150000, 0, 128, 0}}};
// The one constant that a kernel has: of attention what it is, of a GEMM what its name says, as kernels/cuda/kernel_info.h has it.
EXPORT int cuModuleGetGlobal_v2(uint64_t* address, size_t* bytes, int* module, const char* symbol) {
  CALL(cuModuleGetGlobal_v2)
  NEEDS_CONTEXT
  NEEDS(module)
  for (Info& known : kAttentionInfos)
    if (std::strncmp(symbol, known.name, std::strlen(known.name)) == 0) {
      *address = reinterpret_cast<uint64_t>(known.values);
      *bytes = sizeof known.values;
      return 0;
    }
  static int32_t info[10];
  const std::string name = symbol;
  const bool large = name.find("_large_") != std::string::npos;
  info[0] = std::atoi(name.c_str() + name.find("_f") + 2);
  info[1] = std::atoi(name.c_str() + name.find("_t") + 2);
  info[2] = large ? 1 : 2;
  info[3] = large ? 32 : 0;
  info[4] = large ? 2 : 1;
  info[5] = 384;
  info[6] = 100000;
  info[7] = name.find("_full") != std::string::npos;
  info[8] = name.find("_fp32") != std::string::npos ? 4 : 2;
  info[9] = large ? 69632 : 0;
  *address = reinterpret_cast<uint64_t>(info);
  *bytes = sizeof info;
  return 0;
}
// Checks what the real one does, and leaves the address, the sizes, the box and the swizzle in the map.
EXPORT int cuTensorMapEncodeTiled(uint64_t* map, int type, unsigned rank, void* address, const uint64_t* sizes,
                                  const uint64_t* strides, const uint32_t* box, const uint32_t*, int, int swizzle, int, int) {
  CALL(cuTensorMapEncodeTiled)
  if (reinterpret_cast<uint64_t>(map) % 64 != 0 || reinterpret_cast<uint64_t>(address) % 16 != 0) return kInvalidValue;
  const unsigned elementBytes = type == 9 ? 2 : 1, span = swizzle == 3 ? 128 : 64;
  if (box[0] * elementBytes > span) return kInvalidValue;
  for (unsigned i = 0; i < rank; i++) {
    if (sizes[i] == 0 || box[i] == 0 || box[i] > 256) return kInvalidValue;
    if (i > 0 && strides[i - 1] % 16 != 0) return kInvalidValue;
    map[1 + i] = sizes[i];
    map[5 + i] = box[i];
  }
  map[0] = reinterpret_cast<uint64_t>(address);
  map[9] = swizzle;
  return 0;
}
EXPORT int cuFuncSetAttribute(const void*, int attribute, int value) {
  CALL(cuFuncSetAttribute)
  if (attribute == 8) state->maxShared = value;
  return value > 232448 ? kInvalidValue : 0;
}
EXPORT int cuFuncGetParamInfo(const void* function, size_t index, size_t* offset, size_t* bytes) {
  const std::vector<int64_t> parameters = parametersOf(function);
  if (index >= parameters.size()) return kInvalidValue;
  *offset = 0;
  *bytes = parameters[index];
  return 0;
}

struct Attribute {
  int id;
  char pad[4];
  int value[16];
};
struct Launch {
  unsigned grid[3], block[3], sharedBytes;
  Stream* stream;
  Attribute* attributes;
  unsigned count;
};
EXPORT int cuLaunchKernelEx(const Launch* launch, const void* function, void** arguments, void**) {
  CALL(cuLaunchKernelEx)
  NEEDS_CONTEXT
  size_t at = 0;
  const std::vector<int64_t> parameters = parametersOf(function);
  for (size_t i = 0; i < parameters.size() && at + parameters[i] <= sizeof state->arguments; i++) {
    std::memcpy(state->arguments + at, arguments[i], parameters[i]);
    at += parameters[i];
  }
  for (int i = 0; i < 3; i++) {
    state->grid[i] = launch->grid[i];
    state->block[i] = launch->block[i];
  }
  state->sharedBytes = launch->sharedBytes;
  state->cluster = 1;
  state->dependent = 0;
  for (unsigned i = 0; i < launch->count; i++) {
    if (launch->attributes[i].id == 4) state->cluster = launch->attributes[i].value[0];
    if (launch->attributes[i].id == 6) state->dependent = launch->attributes[i].value[0];
  }
  return enqueue(launch->stream, [] { state->launches++; });
}
