// The addon's functions, except CUDA's. Their TypeScript side is packages/kernels/src/native/addon-types.ts.

#include <napi.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "backend.h"
#include "compile.h"
#include "cuda_functions.h"
#include "define.h"
#include "values.h"

namespace fireq {

FIREQ_HANDLE(CpuBackend, "backend", 0x3f1c8a52b7d94e01, 0x9b6d04f7c25e8a13)
FIREQ_HANDLE(Weight, "weight", 0x7ae25c1960fd4b82, 0x1c90be3fd8a74526)
FIREQ_HANDLE(KvCache, "KV cache", 0xc4093be8715f4d63, 0x62af58d1e30c97b4)
FIREQ_HANDLE(Executable, "program", 0x18d7f6a02e9b4cc4, 0xe5713c84fb062d98)

namespace {

using Info = Napi::CallbackInfo;

CpuBackend::Stop neverStopped() { return std::make_shared<std::atomic<bool>>(false); }

/// instructionSets(): { name, usable, reason }[], the fastest usable one first
Napi::Value instructionSets(const Info& info) {
  Napi::Array result = Napi::Array::New(info.Env());
  for (const Isa isa : {Isa::Avx512, Isa::Avx2, Isa::Plain, Isa::Avx512Emulated}) {
    Napi::Object entry = Napi::Object::New(info.Env());
    entry.Set("name", nameOf(isa));
    entry.Set("usable", isUsable(isa));
    entry.Set("reason", whyNot(isa));
    result.Set(result.Length(), entry);
  }
  return result;
}

/// opKinds(isa): string[]
Napi::Value opKindsOf(const Info& info) {
  if (!info[0].IsString()) throw Error("expected the name of an instruction set");
  Napi::Array result = Napi::Array::New(info.Env());
  for (const std::string& kind : opKinds(isaNamed(info[0].As<Napi::String>().Utf8Value()))) {
    result.Set(result.Length(), kind);
  }
  return result;
}

/// createBackend({ threads, isa, poison }): handle
Napi::Value createBackend(const Info& info) {
  const Napi::Object options = object(info[0], "options");
  const int64_t threads = whole(options, "threads");
  if (threads < 1 || threads > 1024) throw Error("expected 1 to 1024 threads");
  return makeHandle(info.Env(), std::make_shared<CpuBackend>(info.Env(), static_cast<int>(threads),
                                                             isaNamed(text(options, "isa")), flag(options, "poison")));
}

/// createMatrix({ format, rows, columns, groupSize, channelScale? }): handle
Napi::Value createMatrix(const Info& info) {
  const Napi::Object spec = object(info[0], "spec");
  const WeightFormat format = weightFormatNamed(text(spec, "format"));
  const int64_t rows = whole(spec, "rows"), columns = whole(spec, "columns"), groupSize = whole(spec, "groupSize");
  constexpr int64_t kMost = int64_t{1} << 31;
  if (rows < 1 || rows >= kMost || columns < 1 || columns >= kMost) throw Error("expected a matrix of 1 to 2³¹ rows and columns");
  if (groupSize < 1 || columns % groupSize != 0) throw Error("expected a groupSize that divides the columns");
  auto weight = std::make_shared<Weight>(makeMatrix(format, rows, columns, groupSize));
  if (const Napi::Value given = spec.Get("channelScale"); !given.IsUndefined()) {
    const Elements scale = elements(given, "f32", "channelScale");
    if (static_cast<int64_t>(scale.count) != rows) throw Error("expected a channelScale for each row");
    weight->channelScale.assign(weight->tiles * kTile, 0);
    std::memcpy(weight->channelScale.data(), scale.data, scale.bytes);
  }
  return makeHandle(info.Env(), std::move(weight));
}

/// createVector(format, values): handle
Napi::Value createVector(const Info& info) {
  if (!info[0].IsString()) throw Error("expected a format");
  const std::string format = info[0].As<Napi::String>().Utf8Value();
  const Elements values = elements(info[1], format, "the values");
  if (values.count == 0) throw Error("expected at least one value");
  return makeHandle(info.Env(), std::make_shared<Weight>(makeVector(weightFormatNamed(format),
                                                                    static_cast<int64_t>(values.count), values.data)));
}

/// Memory of its own, not the heap's, so that nothing of it stays behind.
std::shared_ptr<Memory> copyOf(const Elements& from) {
  auto copy = std::make_shared<Memory>(from.bytes);
  std::memcpy(copy->data(), from.data, from.bytes);
  return copy;
}

/// packRows(backend, weight, firstRow, values): Promise; packRows(…, codes, scales, scaleType, groupSize) for INT4.
/// Copies what it is given before it returns.
Napi::Value packRows(const Info& info) {
  const auto backend = held<CpuBackend>(info[0]);
  const auto weight = held<Weight>(info[1]);
  const int64_t firstRow = whole(info[2], "firstRow");
  if (weight->isVector() || firstRow % kTile != 0 || firstRow >= weight->rows) throw Error("expected a matrix and the first row of a tile");
  const int64_t firstTile = firstRow / kTile;
  const int64_t columns = weight->columns;
  if (!weight->isInt4()) {
    const char* type = weight->format == WeightFormat::F32 ? "f32" : "bf16";
    const Elements values = elements(info[3], type, "the values");
    const int64_t rows = static_cast<int64_t>(values.count) / columns;
    if (rows * columns != static_cast<int64_t>(values.count) || rows < 1 || firstRow + rows > weight->rows ||
        (rows % kTile != 0 && firstRow + rows != weight->rows)) {
      throw Error("expected whole rows that fill tiles of the matrix");
    }
    const int64_t rowBytes = columns * (weight->format == WeightFormat::F32 ? 4 : 2);
    const auto data = copyOf(values);
    return backend->submit(info.Env(), neverStopped(), {}, [=](Pool& pool, const std::atomic<bool>& stop) {
      pool.parallelFor((rows + kTile - 1) / kTile, &stop, [&](int64_t tile, int) {
        packDenseTile(*weight, firstTile + tile, static_cast<const char*>(data->data()) + tile * kTile * rowBytes);
      });
    });
  }
  if (!info[5].IsString()) throw Error("expected the scales' type");
  const std::string scaleType = info[5].As<Napi::String>().Utf8Value();
  const Elements codes = elements(info[3], "u8", "the codes");
  const Elements scales = elements(info[4], scaleType, "the scales");
  const int64_t groupSize = whole(info[6], "groupSize");
  if (groupSize < 1 || columns % groupSize != 0) throw Error("expected a groupSize that divides the columns");
  const int64_t groups = columns / groupSize;
  const int64_t rows = static_cast<int64_t>(scales.count) / groups;
  if (rows * groups != static_cast<int64_t>(scales.count) || rows < 1 || firstRow + rows > weight->rows ||
      (rows % kTile != 0 && firstRow + rows != weight->rows) ||
      static_cast<int64_t>(codes.count) != (rows * columns + 1) / 2) {
    throw Error("expected codes and scales of whole rows that fill tiles of the matrix");
  }
  for (int64_t b = 0; b < weight->blockCount(); b++) {
    if (weight->blocks[b].begin / groupSize != (weight->blocks[b].begin + weight->blocks[b].length - 1) / groupSize) {
      throw Error("expected the groupSize that the matrix was made with");
    }
  }
  const ScaleType type = scaleTypeNamed(scaleType);
  const int64_t scaleBytes = static_cast<int64_t>(scales.bytes / scales.count);
  const auto codeData = copyOf(codes);
  const auto scaleData = copyOf(scales);
  return backend->submit(info.Env(), neverStopped(), {}, [=](Pool& pool, const std::atomic<bool>& stop) {
    pool.parallelFor((rows + kTile - 1) / kTile, &stop, [&](int64_t tile, int) {
      const auto* tileCodes = static_cast<const uint8_t*>(codeData->data()) + tile * kTile * columns / 2;
      const char* tileScales = static_cast<const char*>(scaleData->data()) + tile * kTile * groups * scaleBytes;
      packInt4Tile(*weight, firstTile + tile, {tileCodes, tileScales, type, groupSize});
    });
  });
}

/// createKvCache({ layers, heads, headDim, pages, pageSize, type, symmetric, scale }): handle
Napi::Value createKvCache(const Info& info) {
  return makeHandle(info.Env(), std::make_shared<KvCache>(kvShapeOf(object(info[0], "spec"))));
}

/// bytesOf(weight or KV cache): number
Napi::Value bytesOf(const Info& info) {
  const size_t bytes = shareOf<Weight>(info[0]) != nullptr ? held<Weight>(info[0])->bytes() : held<KvCache>(info[0])->bytes();
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

/// compile(backend, program, weights): handle
Napi::Value compile(const Info& info) {
  auto backend = held<CpuBackend>(info[0]);
  return makeHandle(info.Env(), compileProgram(std::move(backend), object(info[1], "program"), array(info[2], "weights")));
}

/// run(executable, [tokens, sequences, outputs, pages], inputs, outputs, kv | null): { done: Promise, abort(): void }
Napi::Value run(const Info& info) {
  const auto executable = held<Executable>(info[0]);
  const auto kv = info[4].IsNull() ? nullptr : held<KvCache>(info[4]);
  return startRun(info.Env(), executable, array(info[1], "sizes"), array(info[2], "inputs"), array(info[3], "outputs"), kv);
}

/// release(handle): gives up what a handle holds; twice is fine
Napi::Value release(const Info& info) {
  if (auto* backend = shareOf<CpuBackend>(info[0])) {
    if (*backend != nullptr) (*backend)->close();
    backend->reset();
  } else if (auto* weight = shareOf<Weight>(info[0])) {
    weight->reset();
  } else if (auto* kv = shareOf<KvCache>(info[0])) {
    kv->reset();
  } else if (auto* executable = shareOf<Executable>(info[0])) {
    executable->reset();
  } else {
    throw Error("expected a handle");
  }
  return info.Env().Undefined();
}

/// Seconds that the fastest of `repeats` takes when every thread of the pool runs `body`.
template <class Body>
double fastest(Pool& pool, const std::atomic<bool>& stop, int repeats, Body&& body) {
  double best = 1e300;
  for (int i = 0; i < repeats; i++) {
    const auto begin = std::chrono::steady_clock::now();
    pool.parallelFor(pool.threads(), &stop, body);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

/// measure(backend, Float64Array(2)): Promise; fills in [bytes read per second, FP32 operations per second]
Napi::Value measure(const Info& info) {
  const auto backend = held<CpuBackend>(info[0]);
  const Elements result = elements(info[1], napi_float64_array, "the result");
  if (result.count != 2) throw Error("expected room for two numbers");
  std::vector<Napi::ObjectReference> kept;
  kept.push_back(Napi::Persistent(info[1].As<Napi::Object>()));
  auto* numbers = static_cast<double*>(result.data);
  const Probe probe = probeOf(backend->isa());
  return backend->submit(info.Env(), neverStopped(), std::move(kept), [=](Pool& pool, const std::atomic<bool>& stop) {
    constexpr size_t kBytes = size_t{64} << 20;  // per thread, beyond any cache but shared ones
    constexpr int kPasses = 4;
    const Memory memory(kBytes * pool.threads());
    std::memset(memory.data(), 1, memory.bytes());
    const double readSeconds = fastest(pool, stop, 7, [&](int64_t thread, int) {
      for (int pass = 0; pass < kPasses; pass++) probe.read(static_cast<char*>(memory.data()) + thread * kBytes, kBytes);
    });
    constexpr int64_t kSteps = 1 << 20;
    const double addSeconds = fastest(pool, stop, 7, [&](int64_t, int) { probe.multiplyAdd(kSteps); });
    numbers[0] = static_cast<double>(kBytes) * kPasses * pool.threads() / readSeconds;
    numbers[1] = static_cast<double>(kSteps) * 10 * 16 * 2 * pool.threads() / addSeconds;
  });
}

void cleanUp(Environment* environment) {
  for (CpuBackend* backend : environment->backends) backend->shutDown();
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  auto* environment = new Environment;
  env.SetInstanceData(environment);
  env.AddCleanupHook(cleanUp, environment);
  define<instructionSets>(exports, "instructionSets");
  define<opKindsOf>(exports, "opKinds");
  define<createBackend>(exports, "createBackend");
  define<createMatrix>(exports, "createMatrix");
  define<createVector>(exports, "createVector");
  define<packRows>(exports, "packRows");
  define<createKvCache>(exports, "createKvCache");
  define<bytesOf>(exports, "bytesOf");
  define<compile>(exports, "compile");
  define<run>(exports, "run");
  define<release>(exports, "release");
  define<measure>(exports, "measure");
  cuda::defineFunctions(exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(fireq, initialize)

}  // namespace fireq
