#include "cuda_pack.h"

#include <cstring>
#include <memory>
#include <thread>

#include "../cuda/runtime/int4_pack.h"
#include "cuda_handles.h"
#include "define.h"

namespace fireq::cuda {

namespace {

/// A slab on its way: copied from JavaScript, packed into pinned memory on another thread, then sent to the device.
struct Packing {
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Buffer> to;
  size_t offset = 0;
  std::string what;
  Staging::Chunk* input = nullptr;          // pinned memory is there already, and its pages too
  std::unique_ptr<char[]> ownInput;         // for a slab that is larger
  char* room = nullptr;
  Int4Slab slab;
  PackedFormat format;
  size_t blocks = 0;
  std::vector<Staging::Chunk*> chunks;
  PackFindings found;
  std::string error;

  ~Packing() {
    for (Staging::Chunk* chunk : chunks) chunk->isHeld = false;
    if (input != nullptr) input->isHeld = false;
  }

  Staging::Chunk& hold() {
    Staging::Chunk& chunk = stream->device().staging().acquire(what);
    chunk.isHeld = true;
    return chunk;
  }

  size_t bytesPerBlock() const { return blockBytes(slab, format); }
  size_t blocksPerChunk() const { return Staging::kChunkBytes / bytesPerBlock(); }

  void pack() {
    // Node has four threads for such work; all of them together take the machine.
    const int threads = static_cast<int>(std::thread::hardware_concurrency()) / 4;
    found = packInt4(
        slab, format, threads,
        [this](int64_t block) {
          const size_t perChunk = blocksPerChunk();
          return static_cast<char*>(chunks[block / perChunk]->data) + block % perChunk * bytesPerBlock();
        },
        what);
  }

  void send() {
    if (found.needsFull || found.needsFp32) return;
    size_t left = blocks * bytesPerBlock();
    for (Staging::Chunk* chunk : chunks) {
      const size_t bytes = std::min(left, blocksPerChunk() * bytesPerBlock());
      stream->uploadHeld(*chunk, bytes, to, offset, what);
      offset += bytes;
      left -= bytes;
    }
  }
};

void packOnThread(napi_env, void* data) {
  auto* packing = static_cast<Packing*>(data);
  try {
    packing->pack();
  } catch (const std::exception& error) {
    packing->error = error.what();
  }
}

// Plain Node-API, as in cuda_wait.cc: an environment that is torn down must not end the process.
void settle(napi_env env, napi_status status, void* data) {
  const std::unique_ptr<Packing> packing(static_cast<Packing*>(data));
  try {
    if (status == napi_ok && packing->error.empty()) packing->send();
  } catch (const std::exception& error) {
    packing->error = error.what();
  }
  napi_value result = nullptr;
  if (packing->error.empty()) {
    napi_create_uint32(env, packing->found.needsFull + 2 * packing->found.needsFp32, &result);
    napi_resolve_deferred(env, packing->deferred, result);
  } else {
    napi_value message = nullptr;
    napi_create_string_utf8(env, packing->error.c_str(), packing->error.size(), &message);
    napi_create_error(env, nullptr, message, &result);
    napi_reject_deferred(env, packing->deferred, result);
  }
  napi_delete_async_work(env, packing->work);
}

const char* copyOf(const Elements& from, Packing& packing) {
  char* copy = packing.room;
  std::memcpy(copy, from.data, from.bytes);
  packing.room += (from.bytes + 15) / 16 * 16;
  return copy;
}

void expectCount(const Elements& given, int64_t count, const char* name) {
  if (static_cast<int64_t>(given.count) != count) throw Error(std::string("expected ") + std::to_string(count) + " " + name);
}

GroupScaleType scaleTypeOf(const std::string& name) {
  if (name == "bf16") return GroupScaleType::kBf16;
  if (name == "e4m3") return GroupScaleType::kE4m3;
  if (name == "f32") return GroupScaleType::kFp32;
  throw Error("unknown type '" + name + "' of group scales");
}

/// { parts: { codes, scales, channelScale? }[], scaleType, rows, columns, groupSize, firstRow }
void readSlab(const Napi::Object& given, Packing& packing) {
  Int4Slab& slab = packing.slab;
  const std::string type = text(given, "scaleType");
  slab.scaleType = scaleTypeOf(type);
  slab.rows = whole(given, "rows");
  slab.columns = whole(given, "columns");
  slab.group = whole(given, "groupSize");
  slab.firstRow = whole(given, "firstRow");
  const Napi::Array parts = array(given.Get("parts"), "parts");
  constexpr int64_t kMost = int64_t{1} << 31;
  if (slab.columns < 128 || slab.columns % 128 != 0 || slab.columns >= kMost) throw Error("expected columns a multiple of 128");
  if (slab.group != 32 && slab.group != 64 && slab.group != 128) throw Error("expected 32, 64 or 128 for groupSize");
  if (slab.rows < 16 || slab.rows % 16 != 0 || slab.rows >= kMost) throw Error("expected rows a multiple of 16");
  if (parts.Length() < 1 || parts.Length() > 2) throw Error("expected one part or two");
  const int64_t rows = slab.rows / parts.Length();
  const size_t most = static_cast<size_t>(slab.rows * (slab.columns / 2 + slab.columns / slab.group * 4 + 4) + 6 * 16);
  if (most <= Staging::kChunkBytes) {
    packing.input = &packing.hold();
    packing.room = static_cast<char*>(packing.input->data);
  } else {
    packing.ownInput.reset(new char[most]);
    packing.room = packing.ownInput.get();
  }
  for (uint32_t i = 0; i < parts.Length(); i++) {
    const Napi::Object part = object(parts.Get(i), "a part");
    const Elements codes = elements(part.Get("codes"), napi_uint8_array, "codes");
    const Elements scales = elements(part.Get("scales"), type, "scales");
    expectCount(codes, rows * slab.columns / 2, "bytes of codes");
    expectCount(scales, rows * slab.columns / slab.group, "group scales");
    Int4Rows source{reinterpret_cast<const uint8_t*>(copyOf(codes, packing)), copyOf(scales, packing), nullptr};
    if (const Napi::Value channel = part.Get("channelScale"); !channel.IsUndefined()) {
      const Elements values = elements(channel, napi_float32_array, "channelScale");
      expectCount(values, rows, "channel scales");
      source.channelScale = reinterpret_cast<const float*>(copyOf(values, packing));
    }
    slab.parts.push_back(source);
  }
}

}  // namespace

Napi::Value uploadInt4(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto packing = std::make_unique<Packing>();
  packing->stream = held<Stream>(info[0]);
  packing->to = held<Buffer>(info[3]);
  packing->offset = static_cast<size_t>(whole(info[4], "offset"));
  packing->what = string(info[5], "what is packed");
  const Napi::Object format = object(info[2], "format");
  packing->format.full = flag(format, "full");
  packing->format.forBf16 = flag(format, "forBf16");
  if (packing->format.forBf16 && !packing->format.full) throw Error("expected full with forBf16");
  packing->format.scaleBytes = static_cast<int>(whole(format, "scaleBytes"));
  if (packing->format.scaleBytes != 2 && packing->format.scaleBytes != 4) throw Error("expected 2 or 4 for scaleBytes");
  const Device::Current current(packing->stream->device());
  readSlab(object(info[1], "slab"), *packing);

  packing->blocks = static_cast<size_t>((packing->slab.rows + 63) / 64 * (packing->slab.columns / 128));
  packing->to->use(packing->stream, packing->offset, packing->blocks * packing->bytesPerBlock(), packing->what);
  for (size_t at = 0; at < packing->blocks; at += packing->blocksPerChunk()) {
    packing->chunks.push_back(&packing->hold());
  }
  napi_value promise = nullptr, name = nullptr;
  if (napi_create_string_utf8(env, "fireq.cuda.pack", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_promise(env, &packing->deferred, &promise) != napi_ok ||
      napi_create_async_work(env, nullptr, name, packOnThread, settle, packing.get(), &packing->work) != napi_ok ||
      napi_queue_async_work(env, packing->work) != napi_ok) {
    throw Error("packing weights could not be started");
  }
  packing.release();  // settle takes it back
  return {env, promise};
}

}  // namespace fireq::cuda
