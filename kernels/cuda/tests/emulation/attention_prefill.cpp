// attention_tiles and attention_prefill on the host: `program IN OUT`. IN: i32 tiles, keyHeads, pagesPerSequence, pieces of work, queryHeads,
// rows of q, blocks; FP32 softmaxScale; then cache, pageTable, tiles, q, qScale and work, each behind its bytes as i64. OUT: BF16 rows.
// FORMAT, HEAD_DIM and STAGES are defined by who compiles it; with CHUNK new tokens come from an E4M3 cache of as many pages: its bytes are behind the
// cache's in the same part, and its pageTable is one more part.
#include "intrinsics.h"
#include "attention_prefill.cuh"
#include "parts.h"

using namespace fireq;
using Layout = KvLayout<KvFormat::FORMAT, HEAD_DIM>;
using Config = AttentionPrefillConfig<HEAD_DIM, STAGES, Overlap::kBoth>;
using Tile = prefill::DecodedTile<HEAD_DIM>;
static_assert(kAttentionPrefillSharedBytes<Config> <= kSharedBytes);

#ifdef CHUNK
static AttentionChunkTilesParams making;
#else
static AttentionTilesParams making;
#endif
static AttentionPrefillParams attending;
#ifdef CHUNK
static void makeTile() { attentionChunkTiles<Layout, KvLayout<KvFormat::kE4m3, HEAD_DIM>>(making); }
#else
static void makeTile() { attentionTiles<Layout>(making); }
#endif
static void attend() { attentionPrefill<Config>(attending); }

static void launch(int x, int y, int threads, void (*entry)(), const uint8_t* readable, size_t bytes) {
  ptx::readable = readable, ptx::readableEnd = readable + bytes;
  emulation::launch(x, y, 1, threads, entry);
}

int main(int, char** arguments) {
  emulation::Input in(arguments[1]);
  const auto [tiles, keyHeads, pagesPerSequence, pieces, queryHeads, rows, blocks] = in.take<std::array<int32_t, 7>>();
  const float softmaxScale = in.take<float>();
  const auto cache = in.part(), pageTable = in.part(), tileList = in.part(), q = in.part(), qScale = in.part(), work = in.part();
  const size_t decodedBytes = static_cast<size_t>(tiles) * keyHeads * sizeof(Tile);
  auto* const decoded = static_cast<uint8_t*>(std::aligned_alloc(128, decodedBytes));
  std::memset(decoded, 0xff, decodedBytes);
  std::vector<uint16_t> out(static_cast<size_t>(rows) * queryHeads * HEAD_DIM, 0xffff);
  const AttentionTilesParams plain = {cache.data, pageTable.as<int32_t>(), tileList.as<int4>(), decoded, keyHeads, pagesPerSequence};
#ifdef CHUNK
  const int64_t mine = Layout::kPageBytes, both = mine + KvLayout<KvFormat::kE4m3, HEAD_DIM>::kPageBytes;
  making = {plain, cache.data + cache.bytes / both * mine, in.part().as<int32_t>()};
#else
  making = plain;
#endif
  attending = {q.data, qScale.as<float>(), decoded, work.as<int4>(), out.data(), pieces, queryHeads, keyHeads, softmaxScale};
  launch(tiles, keyHeads, 128, makeTile, cache.data, cache.bytes);
  launch(blocks, 1, Config::kThreads, attend, decoded, decodedBytes);
  emulation::write(arguments[2], out);
}
