// attention_tiles and attention_prefill on the host: `program IN OUT`. IN: i32 tiles, keyHeads, pagesPerSequence, pieces of work, queryHeads,
// rows of q, blocks; FP32 softmaxScale; then cache, pageTable, tiles, q, qScale and work, each behind its bytes as i64. OUT: BF16 rows.
// FORMAT, HEAD_DIM and STAGES are defined by who compiles it; with CHUNK new tokens come from an E4M3 cache of as many pages: its bytes are behind the
// cache's in the same part, and its pageTable is one more part.
#include "intrinsics.h"
#include "attention_prefill.cuh"

namespace fireq {
alignas(1024) uint8_t memory[kSharedBytes];
}
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
constexpr int kParts = 7;
#else
static void makeTile() { attentionTiles<Layout>(making); }
constexpr int kParts = 6;
#endif
static void attend() { attentionPrefill<Config>(attending); }

static void read(void* to, size_t bytes, FILE* file) {
  if (bytes > 0 && std::fread(to, bytes, 1, file) != 1) emulation::fail("the input is too short");
}

static void launch(int x, int y, int threads, void (*entry)(), const uint8_t* readable, size_t bytes) {
  ptx::readable = readable, ptx::readableEnd = readable + bytes;
  emulation::launch(x, y, 1, threads, entry);
}

int main(int, char** arguments) {
  FILE* file = std::fopen(arguments[1], "rb");
  int32_t sizes[7];
  float softmaxScale;
  read(sizes, sizeof sizes, file);
  read(&softmaxScale, 4, file);
  uint8_t* parts[kParts];
  int64_t bytes[kParts];
  for (int i = 0; i < kParts; i++) {
    read(&bytes[i], 8, file);
    parts[i] = static_cast<uint8_t*>(std::aligned_alloc(128, (bytes[i] + 255) / 128 * 128));
    read(parts[i], bytes[i], file);
  }
  std::fclose(file);
  const auto [tiles, keyHeads, pagesPerSequence, pieces, queryHeads, rows, blocks] = sizes;
  const size_t decodedBytes = static_cast<size_t>(tiles) * keyHeads * sizeof(Tile);
  auto* const decoded = static_cast<uint8_t*>(std::aligned_alloc(128, decodedBytes));
  std::memset(decoded, 0xff, decodedBytes);
  std::vector<uint16_t> out(static_cast<size_t>(rows) * queryHeads * HEAD_DIM, 0xffff);
  const AttentionTilesParams plain = {parts[0], reinterpret_cast<int32_t*>(parts[1]), reinterpret_cast<int4*>(parts[2]), decoded, keyHeads, pagesPerSequence};
#ifdef CHUNK
  const int64_t mine = Layout::kPageBytes, both = mine + KvLayout<KvFormat::kE4m3, HEAD_DIM>::kPageBytes;
  making = {plain, parts[0] + bytes[0] / both * mine, reinterpret_cast<int32_t*>(parts[6])};
#else
  making = plain;
#endif
  attending = {parts[3], reinterpret_cast<float*>(parts[4]), decoded, reinterpret_cast<int4*>(parts[5]), out.data(), pieces, queryHeads, keyHeads,
               softmaxScale};
  launch(tiles, keyHeads, 128, makeTile, parts[0], bytes[0]);
  launch(blocks, 1, Config::kThreads, attend, decoded, decodedBytes);
  file = std::fopen(arguments[2], "wb");
  std::fwrite(out.data(), 2, out.size(), file);
  return std::fclose(file);
}
