#include "cuda_pack.h"

#include <algorithm>

#include "../cuda/runtime/int4_pack.h"
#include "cuda_handles.h"
#include "define.h"

namespace fireq::cuda {

namespace {

/// Chunks of pinned memory that are packed into, let go whatever happens.
class HeldChunks {
 public:
  HeldChunks(Stream& stream, const std::string& what) : staging_(stream.device().staging()), what_(what) {}
  ~HeldChunks() {
    for (Staging::Chunk* chunk : chunks_) chunk->isHeld = false;
  }
  HeldChunks(const HeldChunks&) = delete;

  void add() {
    chunks_.push_back(&staging_.acquire(what_));
    chunks_.back()->isHeld = true;
  }
  size_t count() const { return chunks_.size(); }
  Staging::Chunk& operator[](size_t i) const { return *chunks_[i]; }

 private:
  Staging& staging_;
  const std::string& what_;
  std::vector<Staging::Chunk*> chunks_;
};

void expectCount(const Elements& given, int64_t count, const char* name) {
  if (static_cast<int64_t>(given.count) != count) throw Error(std::string("expected ") + std::to_string(count) + " " + name);
}

GroupScaleType scaleTypeOf(const std::string& name) {
  if (name == "bf16") return GroupScaleType::kBf16;
  if (name == "e4m3") return GroupScaleType::kE4m3;
  if (name == "f32") return GroupScaleType::kFp32;
  throw Error("unknown type '" + name + "' of group scales");
}

/// { parts: { codes, scales, channelScale? }[], scaleType, rows, columns, groupSize, firstRow }; the slab points into JavaScript's memory.
Int4Slab readSlab(const Napi::Object& given) {
  Int4Slab slab;
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
  for (uint32_t i = 0; i < parts.Length(); i++) {
    const Napi::Object part = object(parts.Get(i), "a part");
    const Elements codes = elements(part.Get("codes"), napi_uint8_array, "codes");
    const Elements scales = elements(part.Get("scales"), type, "scales");
    expectCount(codes, rows * slab.columns / 2, "bytes of codes");
    expectCount(scales, rows * slab.columns / slab.group, "group scales");
    Int4Rows source{static_cast<const uint8_t*>(codes.data), static_cast<const char*>(scales.data), nullptr};
    if (const Napi::Value channel = part.Get("channelScale"); !channel.IsUndefined()) {
      const Elements values = elements(channel, napi_float32_array, "channelScale");
      expectCount(values, rows, "channel scales");
      source.channelScale = static_cast<const float*>(values.data);
    }
    slab.parts.push_back(source);
  }
  return slab;
}

}  // namespace

// JavaScript waits meanwhile, so that nothing has to be copied out of its reach first; slabs are small.
Napi::Value uploadInt4(const Napi::CallbackInfo& info) {
  const auto stream = held<Stream>(info[0]);
  const Int4Slab slab = readSlab(object(info[1], "slab"));
  const Napi::Object given = object(info[2], "format");
  const auto to = held<Buffer>(info[3]);
  size_t offset = static_cast<size_t>(whole(info[4], "offset"));
  const std::string what = string(info[5], "what is packed");
  const PackedFormat format{flag(given, "full"), static_cast<int>(whole(given, "scaleBytes")), flag(given, "forBf16")};
  if (format.forBf16 && !format.full) throw Error("expected full with forBf16");
  if (format.scaleBytes != 2 && format.scaleBytes != 4) throw Error("expected 2 or 4 for scaleBytes");

  const size_t blocks = static_cast<size_t>((slab.rows + 63) / 64 * (slab.columns / 128)), bytes = blockBytes(slab, format);
  const size_t perChunk = Staging::kChunkBytes / bytes;
  to->use(stream, offset, blocks * bytes, what);
  const Device::Current current(stream->device());
  HeldChunks chunks(*stream, what);
  while (chunks.count() * perChunk < blocks) chunks.add();
  const PackFindings found = packInt4(
      slab, format, stream->device().pool(),
      [&](int64_t block) { return static_cast<char*>(chunks[block / perChunk].data) + block % perChunk * bytes; }, what);
  if (!found.needsFull && !found.needsFp32) {
    for (size_t i = 0; i < chunks.count(); i++) {
      const size_t size = std::min(perChunk, blocks - i * perChunk) * bytes;
      stream->uploadHeld(chunks[i], size, to, offset, what);
      offset += size;
    }
  }
  return Napi::Number::New(info.Env(), found.needsFull + 2 * found.needsFp32);
}

}  // namespace fireq::cuda
