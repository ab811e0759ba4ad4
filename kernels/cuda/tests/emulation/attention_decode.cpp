// attention_decode on the host: `program` tells queries a pass, warps and bytes of a partial sum; `program IN OUT` runs a launch. IN: i32
// queryHeads, keyHeads, group, newTokens, pagesPerSequence, blocks, rows of q, FP32 softmaxScale; then q, qScale, cache, pageTable, runs,
// pieces and merges, each behind its bytes as i64. OUT: BF16 rows. FORMAT, HEAD_DIM, TILES, WARPS and STAGES are defined by who compiles it.
#include "intrinsics.h"
#include "attention_decode.cuh"

namespace fireq {
alignas(1024) uint8_t memory[kSharedBytes];
}
using namespace fireq;
using Config = decode::Config<KvLayout<KvFormat::FORMAT, HEAD_DIM>, TILES, WARPS, STAGES>;
static_assert(sizeof(Config::Shared) <= kSharedBytes && sizeof(AttentionDecodeParams) == 104);

static AttentionDecodeParams params;
static void entry() { attentionDecode<Config>(params); }

static void read(void* to, size_t bytes, FILE* file) {
  if (bytes > 0 && std::fread(to, bytes, 1, file) != 1) emulation::fail("the input is too short");
}

int main(int count, char** arguments) {
  if (count == 1) {
    std::printf("%d %d %d\n", Config::kQueries, Config::kWarps, static_cast<int>(Config::kPartialFloats * sizeof(float)));
    return 0;
  }
  FILE* file = std::fopen(arguments[1], "rb");
  int32_t sizes[7];
  float softmaxScale;
  read(sizes, sizeof sizes, file);
  read(&softmaxScale, 4, file);
  uint8_t* parts[7];
  int64_t bytes[7];
  for (int i = 0; i < 7; i++) {
    read(&bytes[i], 8, file);
    parts[i] = static_cast<uint8_t*>(std::aligned_alloc(128, (bytes[i] + 255) / 128 * 128));
    read(parts[i], bytes[i], file);
  }
  std::fclose(file);
  const auto [queryHeads, keyHeads, group, newTokens, pagesPerSequence, blocks, rows] = sizes;
  std::vector<uint16_t> out(static_cast<size_t>(rows) * queryHeads * HEAD_DIM, 0xffff);
  std::vector<float> partial(2 * static_cast<size_t>(blocks) * Config::kPartialFloats, NAN);
  std::vector<uint32_t> arrived(static_cast<size_t>(blocks) * Config::kQueries);
  params = {parts[0], reinterpret_cast<float*>(parts[1]), parts[2], reinterpret_cast<int32_t*>(parts[3]), reinterpret_cast<decode::Run*>(parts[4]),
            reinterpret_cast<decode::Piece*>(parts[5]), parts[6], out.data(), partial.data(), arrived.data(), queryHeads, keyHeads, group,
            newTokens, pagesPerSequence, softmaxScale};
  ptx::readable = parts[2], ptx::readableEnd = parts[2] + bytes[2];
  emulation::launch(blocks, 1, 1, Config::kThreads, entry);
  for (uint32_t flag : arrived)
    if (flag != 0) emulation::fail("arrivals aren't zero after the launch");
  file = std::fopen(arguments[2], "wb");
  std::fwrite(out.data(), 2, out.size(), file);
  return std::fclose(file);
}
