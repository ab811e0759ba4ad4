// attention_prefill_direct on the host: `program IN OUT`. IN: i32 keyHeads, pagesPerSequence, pieces of work, queryHeads, rows of q, FP32
// softmaxScale; then cache, pageTable, q, qScale and work, each behind its bytes as i64. OUT: BF16 rows. HEAD_DIM, WARPS and STAGES are
// defined by who compiles it.
#include "intrinsics.h"
#include "attention_prefill_direct.cuh"
#include "parts.h"

using namespace fireq;
using Config = prefill::DirectConfig<KvLayout<KvFormat::kBf16, HEAD_DIM>, WARPS, STAGES>;
static_assert(sizeof(Config::Shared) <= kSharedBytes);

static AttentionPrefillDirectParams params;
static void attend() { attentionPrefillDirect<Config>(params); }

int main(int, char** arguments) {
  emulation::Input in(arguments[1]);
  const auto [keyHeads, pagesPerSequence, pieces, queryHeads, rows] = in.take<std::array<int32_t, 5>>();
  const float softmaxScale = in.take<float>();
  const auto cache = in.part();
  const auto pageTable = in.part(), q = in.part(), qScale = in.part(), work = in.part();
  std::vector<uint16_t> out(static_cast<size_t>(rows) * queryHeads * HEAD_DIM, 0xffff);
  params = {q.as<uint8_t>(), qScale.as<float>(), cache.as<uint8_t>(), pageTable.as<int32_t>(), work.as<int4>(), out.data(), queryHeads, keyHeads,
            pagesPerSequence, softmaxScale};
  ptx::readable = cache.data, ptx::readableEnd = cache.data + cache.bytes;
  emulation::launch(pieces, keyHeads, 1, Config::kThreads, attend);
  emulation::write(arguments[2], out);
}
