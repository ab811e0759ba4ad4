// attention_decode on the host: `program` tells queries a pass, warps and bytes of a partial sum; `program IN OUT` runs a launch. IN: i32
// queryHeads, keyHeads, group, newTokens, pagesPerSequence, blocks, rows of q, FP32 softmaxScale; then q, qScale, cache, pageTable, runs,
// pieces and merges, each behind its bytes as i64. OUT: BF16 rows. FORMAT, HEAD_DIM, TILES, WARPS and STAGES are defined by who compiles it.
#include "intrinsics.h"
#include "attention_decode.cuh"
#include "parts.h"

#include <cstdio>

using namespace fireq;
using Config = decode::Config<KvLayout<KvFormat::FORMAT, HEAD_DIM>, TILES, WARPS, STAGES>;
static_assert(sizeof(Config::Shared) <= kSharedBytes && sizeof(AttentionDecodeParams) == 104);

static AttentionDecodeParams params;
static void entry() { attentionDecode<Config>(params); }

int main(int count, char** arguments) {
  if (count == 1) {
    std::printf("%d %d %d\n", Config::kQueries, Config::kWarps, static_cast<int>(Config::kPartialFloats * sizeof(float)));
    return 0;
  }
  emulation::Input in(arguments[1]);
  const auto [queryHeads, keyHeads, group, newTokens, pagesPerSequence, blocks, rows] = in.take<std::array<int32_t, 7>>();
  const float softmaxScale = in.take<float>();
  const auto q = in.part(), qScale = in.part(), cache = in.part(), pageTable = in.part(), runs = in.part(), pieces = in.part(), merges = in.part();
  std::vector<uint16_t> out(static_cast<size_t>(rows) * queryHeads * HEAD_DIM, 0xffff);
  std::vector<float> partial(2 * static_cast<size_t>(blocks) * Config::kPartialFloats, NAN);
  std::vector<uint32_t> arrived(static_cast<size_t>(blocks) * Config::kQueries);
  params = {q.data, qScale.as<float>(), cache.data, pageTable.as<int32_t>(), runs.as<decode::Run>(), pieces.as<decode::Piece>(), merges.data,
            out.data(), partial.data(), arrived.data(), queryHeads, keyHeads, group, newTokens, pagesPerSequence, softmaxScale};
  ptx::readable = cache.data, ptx::readableEnd = cache.data + cache.bytes;
  emulation::launch(blocks, 1, 1, Config::kThreads, entry);
  for (uint32_t flag : arrived)
    if (flag != 0) emulation::fail("arrivals aren't zero after the launch");
  emulation::write(arguments[2], out);
  return 0;
}
