#include "cuda_launch.h"

#include <cstring>

#include "../cuda/choose_plain.hpp"
#include "../cuda/heuristics.hpp"
#include "../cuda/heuristics_w4a16.hpp"
#include "../cuda/runtime/cubins.h"
#include "../cuda/runtime/tensor_map.h"
#include "cuda_handles.h"
#include "define.h"

namespace fireq::cuda {

namespace {

using Info = Napi::CallbackInfo;

/// cudaKernel(device, name): kernel
Napi::Value kernel(const Info& info) {
  return makeHandle(info.Env(), Kernel::load(held<Device>(info[0]), string(info[1], "the kernel's name")));
}

unsigned dimension(const Napi::Value& value, const char* what) {
  const int64_t size = whole(value, what);
  if (size < 1 || size > 0x7fffffff) throw Error(std::string("expected 1 to 2³¹ − 1 for ") + what);
  return static_cast<unsigned>(size);
}

std::array<unsigned, 3> dimensions(const Napi::Object& shape, const char* name) {
  const Napi::Array sizes = array(shape.Get(name), name);
  if (sizes.Length() != 3) throw Error(std::string("expected three sizes for ") + name);
  return {dimension(sizes.Get(0u), name), dimension(sizes.Get(1u), name), dimension(sizes.Get(2u), name)};
}

template <class T>
std::vector<char> bytesOf(const T& value) {
  const char* bytes = reinterpret_cast<const char*>(&value);
  return {bytes, bytes + sizeof value};
}

/// The address of { buffer, offset, bytes }: that part of a buffer.
CUdeviceptr addressOf(const Napi::Object& part, const std::shared_ptr<Stream>& stream, const std::string& what) {
  const auto buffer = held<Buffer>(part.Get("buffer"));
  const size_t offset = static_cast<size_t>(whole(part, "offset")), bytes = static_cast<size_t>(whole(part, "bytes"));
  const CUdeviceptr address = buffer->use(stream, offset, bytes, what);
  stream->keep(buffer);
  return address;
}

template <class T>
std::vector<T> wholes(const Napi::Object& from, const char* name) {
  const Napi::Array values = array(from.Get(name), name);
  std::vector<T> result;
  for (uint32_t i = 0; i < values.Length(); i++) result.push_back(static_cast<T>(whole(values.Get(i), name)));
  return result;
}

/// { tensor: { buffer, offset, bytes }, type, sizes, strides, box, swizzle }
CUtensorMap tensorMapOf(const Napi::Object& map, const std::shared_ptr<Stream>& stream, const std::string& what) {
  TensorMapSpec spec;
  const std::string type = text(map, "type");
  if (type != "u8" && type != "bf16") throw Error("expected u8 or bf16 for a tensor's type");
  const int64_t swizzle = whole(map, "swizzle");
  if (swizzle != 64 && swizzle != 128) throw Error("expected 64 or 128 bytes for swizzle");
  spec.type = type == "u8" ? CU_TENSOR_MAP_DATA_TYPE_UINT8 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
  spec.swizzle = swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B;
  spec.address = addressOf(object(map.Get("tensor"), "tensor"), stream, what);
  spec.sizes = wholes<uint64_t>(map, "sizes");
  spec.strides = wholes<uint64_t>(map, "strides");
  spec.box = wholes<uint32_t>(map, "box");
  const Device::Current current(stream->device());
  return encodeTensorMap(stream->device().driver(), spec, what);
}

void append(std::vector<char>& to, const std::vector<char>& bytes) { to.insert(to.end(), bytes.begin(), bytes.end()); }

/// What nvcc aligns a struct with a tensor map to: CUDA 13 asks for more.
size_t tensorMapAlignment() { return toolkitVersion() >= 13000 ? 128 : 64; }

/// An argument is a Uint8Array with its bytes; { buffer, offset, bytes } for an address; a tensor map; or an array of
/// those, one behind the other: a struct, which ends at a multiple of a tensor map's alignment if it begins with one.
std::vector<char> argumentOf(const Napi::Value& value, const std::shared_ptr<Stream>& stream, const std::string& what) {
  if (value.IsTypedArray()) {
    const Elements given = elements(value, napi_uint8_array, "an argument");
    const char* data = static_cast<const char*>(given.data);
    return {data, data + given.bytes};
  }
  if (value.IsArray()) {
    const Napi::Array fields = value.As<Napi::Array>();
    std::vector<char> bytes;
    for (uint32_t i = 0; i < fields.Length(); i++) append(bytes, argumentOf(fields.Get(i), stream, what));
    const Napi::Value first = fields.Get(0u);
    const bool hasMap = first.IsObject() && first.As<Napi::Object>().Has("tensor");
    if (hasMap) bytes.resize((bytes.size() + tensorMapAlignment() - 1) / tensorMapAlignment() * tensorMapAlignment());
    return bytes;
  }
  const Napi::Object part = object(value, "an argument");
  if (part.Has("tensor")) return cuda::bytesOf(tensorMapOf(part, stream, what));
  return cuda::bytesOf(addressOf(part, stream, what));
}

/// cudaLaunch(stream, kernel, { grid, block, cluster, sharedBytes, dependent }, arguments, what)
Napi::Value launch(const Info& info) {
  const auto stream = held<Stream>(info[0]);
  const auto kernel = held<Kernel>(info[1]);
  const Napi::Object given = object(info[2], "shape");
  const std::string what = string(info[4], "what is launched");
  LaunchShape shape;
  shape.grid = dimensions(given, "grid");
  shape.block = dimensions(given, "block");
  shape.cluster = dimension(given.Get("cluster"), "cluster");
  const int64_t shared = whole(given, "sharedBytes");
  if (shared > 1 << 20) throw Error("expected at most 1 MiB for sharedBytes");
  shape.sharedBytes = static_cast<unsigned>(shared);
  shape.dependent = flag(given, "dependent");
  const Napi::Array values = array(info[3], "arguments");
  std::vector<std::vector<char>> arguments;
  for (uint32_t i = 0; i < values.Length(); i++) arguments.push_back(argumentOf(values.Get(i), stream, what));
  kernel->launch(*stream, shape, arguments, what);
  stream->keep(kernel);
  return info.Env().Undefined();
}

/// cudaConstant(kernel, name): the bytes of a constant in the kernel's file
Napi::Value constant(const Info& info) {
  const std::vector<char> value = held<Kernel>(info[0])->constant(string(info[1], "the constant's name"));
  auto bytes = Napi::Uint8Array::New(info.Env(), value.size());
  std::memcpy(bytes.Data(), value.data(), value.size());
  return bytes;
}

/// M, N, K and multiprocessors from the argument `first` on.
std::array<int, 4> gemmSizes(const Info& info, size_t first) {
  constexpr const char* kNames[] = {"M", "N", "K", "multiprocessors"};
  std::array<int, 4> sizes;
  for (size_t i = 0; i < 4; i++) {
    const int64_t size = whole(info[first + i], kNames[i]);
    if (size > 0x7fffffff || (i > 0 && size < 1)) throw Error(std::string("expected 1 to 2³¹ − 1 for ") + kNames[i]);
    sizes[i] = static_cast<int>(size);
  }
  return sizes;
}

template <class Choice>
Napi::Object describeChoice(Napi::Env env, const char* family, const Choice& chosen) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("family", family);
  result.Set("features", chosen.features);
  result.Set("tokens", chosen.tokens);
  result.Set("split", chosen.split);
  result.Set("sweep", chosen.sweep);
  int clusters = 0, cut = 0;
  if constexpr (requires { chosen.cut; }) clusters = chosen.clusters, cut = chosen.cut;
  result.Set("clusters", clusters);
  result.Set("cut", cut);
  return result;
}

/// cudaChooseGemm, cudaChooseW4a16(M, N, K, multiprocessors): { family, features, tokens, split, sweep, clusters, cut }
template <GemmChoice (*kChoose)(int, int, int, int)>
Napi::Value choose(const Info& info) {
  const auto [m, n, k, sms] = gemmSizes(info, 0);
  const GemmChoice chosen = kChoose(m, n, k, sms);
  const char* family = chosen.family == GemmFamily::kNone ? "none" : chosen.family == GemmFamily::kSmall ? "small" : "large";
  return describeChoice(info.Env(), family, chosen);
}

/// cudaChoosePlain(kind, M, N, K, multiprocessors): the same
Napi::Value choosePlainKernel(const Info& info) {
  const std::string kind = string(info[0], "the kind of kernel");
  if (!isPlainKind(kind.c_str())) throw Error("there is no kind '" + kind + "' of plain kernels");
  const auto [m, n, k, sms] = gemmSizes(info, 1);
  const PlainChoice chosen = choosePlain(kind.c_str(), m, n, k, sms);
  const char* family = chosen.family == PlainFamily::kNone ? "none" : chosen.family == PlainFamily::kSmall ? "small" : "plain";
  return describeChoice(info.Env(), family, chosen);
}

}  // namespace

void defineLaunchFunctions(Napi::Object exports) {
  define<kernel>(exports, "cudaKernel");
  define<constant>(exports, "cudaConstant");
  define<launch>(exports, "cudaLaunch");
  define<choose<chooseGemm>>(exports, "cudaChooseGemm");
  define<choose<chooseW4a16>>(exports, "cudaChooseW4a16");
  define<choosePlainKernel>(exports, "cudaChoosePlain");
}

}  // namespace fireq::cuda
