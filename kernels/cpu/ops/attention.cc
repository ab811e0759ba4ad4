// Causal grouped-query attention over the paged cache; see packages/kernels/src/ops/attention.ts.
//
// The query heads of one key-value head make up the rows of a block, token by token, so that a key is decoded once for
// all of them. A block's scores are computed and kept, then the largest is known (FP8 probabilities are rounded relative
// to it), then values are summed in chunks of positions and the chunks in order. That order is fixed by positions alone:
// a row's result doesn't depend on its batch, on the threads, or on how a prompt was cut up.

#include <algorithm>

#include "../core/registry.h"
#include "../simd/kv_decode.h"
#include "../simd/micro.h"
#include "rows.h"

namespace fireq::FIREQ_ISA {
namespace {

constexpr int64_t kBlockRows = 48;
constexpr int64_t kChunk = 256;       ///< positions whose values are summed on their own
constexpr int64_t kValueRows = 32;    ///< values decoded at once
constexpr size_t kScoreBytes = size_t{64} << 20;  ///< for the scores of all blocks in work

struct Attention {
  const KvCache& kv;
  const View& q;
  const float* qScale;
  const View& out;
  int64_t layer;
  int64_t heads;
  int64_t headsPerGroup;
  int64_t headDim;
  int64_t paddedDim;  ///< of a row of values: whole 16s
  float softmaxScale;
  bool fp8;
};

/// Rows of one sequence and key-value head: row r is query (firstRow + r) / headsPerGroup of the sequence.
struct Block {
  const int32_t* pages;
  int64_t context;
  int64_t firstToken;  ///< the sequence's first token of this step
  int64_t queries;     ///< its tokens of this step
  int64_t keyHead;
  int64_t firstRow;
  int64_t rows;

  int64_t token(const Attention& a, int64_t r) const { return firstToken + (firstRow + r) / a.headsPerGroup; }
  int64_t head(const Attention& a, int64_t r) const {
    return keyHead * a.headsPerGroup + (firstRow + r) % a.headsPerGroup;
  }
  /// Positions that a row sees.
  int64_t visible(const Attention& a, int64_t r) const {
    return context - (queries - 1 - (firstRow + r) / a.headsPerGroup);
  }
  int64_t lastVisible(const Attention& a) const { return visible(a, rows - 1); }
  int64_t chunks(const Attention& a) const { return (lastVisible(a) + kChunk - 1) / kChunk; }
};

/// Memory of a block in work.
struct Room {
  float* q;        ///< [rows][headDim]
  float* scores;   ///< [rows][stride]
  int64_t stride;  ///< whole 16s, at least 16 more than the positions
  float* largest;  ///< [chunks][rows]
  float* sums;     ///< [chunks][rows] of softmax numerators
  float* panel;    ///< a worker's keys [headDim + 8][16] or values [kValueRows][paddedDim]
};

int64_t panelFloats(const Attention& a) { return std::max((a.headDim + 8) * kKeyTile, kValueRows * a.paddedDim + 16); }

/// Calls body with `count` ≤ kRows as a compile-time constant.
template <int Most = kRows, class Body>
FIREQ_INLINE void withRows(int64_t count, Body&& body) {
  if constexpr (Most > 0) {
    if (count == Most) {
      body(std::integral_constant<int, Most>{});
    } else {
      withRows<Most - 1>(count, body);
    }
  }
}

/// `rows` cut into equal steps of at most kRows: a small rest would wait for its own multiply-adds.
int64_t rowStep(int64_t rows) {
  const int64_t steps = (rows + kRows - 1) / kRows;
  return (rows + steps - 1) / steps;
}

float largestOf(const float* values, int64_t count) {
  Row16 most;
  for (VF& part : most.part) part = splat(-__builtin_inff());
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const Row16 next = load16(values + i);
    for (int p = 0; p < kParts; p++) most.part[p] = next.part[p] > most.part[p] ? next.part[p] : most.part[p];
  }
  float lanes[16];
  store16(lanes, most);
  float best = -__builtin_inff();
  for (const float lane : lanes) best = lane > best ? lane : best;
  for (; i < count; i++) best = values[i] > best ? values[i] : best;
  return best;
}

void loadQueries(const Attention& a, const Block& block, float* q) {
  const int64_t size = static_cast<int64_t>(sizeOf(a.q.dtype));
  for (int64_t r = 0; r < block.rows; r++) {
    const char* from = rowOf(a.q, block.token(a, r)) + block.head(a, r) * a.headDim * size;
    toFloats(a.q.dtype, from, a.headDim, q + r * a.headDim);
  }
}

/// Scores of 16 keys, of which `count` exist, at `position`; −∞ where a row can't see.
void scoreTile(const Attention& a, const Block& block, const Room& room, int64_t position, int64_t count) {
  const int64_t step = rowStep(block.rows);
  for (int64_t first = 0; first < block.rows; first += step) {
    const int64_t rows = std::min(step, block.rows - first);
    if (position >= block.visible(a, first + rows - 1)) {
      for (int64_t r = first; r < first + rows; r++) {
        std::fill_n(room.scores + r * room.stride + position, count, -__builtin_inff());
      }
      continue;
    }
    withRows(rows, [&](auto constant) __attribute__((always_inline)) {
      constexpr int kCount = constant;
      Row16 dots[kCount] = {};
      multiply<kCount>(room.q + first * a.headDim, a.headDim, 1, room.panel, kKeyTile, a.headDim, dots);
      for (int i = 0; i < kCount; i++) {
        const int64_t r = first + i;
        const float scale =
            a.qScale == nullptr ? a.softmaxScale
                                : a.qScale[block.token(a, r) * a.heads + block.head(a, r)] * a.softmaxScale;
        for (int p = 0; p < kParts; p++) dots[i].part[p] *= scale;
        const int64_t seen = std::clamp<int64_t>(block.visible(a, r) - position, 0, count);
        float* to = room.scores + r * room.stride + position;
        if (seen == 16) {
          store16(to, dots[i]);
          continue;
        }
        float lanes[16];
        store16(lanes, dots[i]);
        for (int64_t lane = 0; lane < seen; lane++) to[lane] = lanes[lane];
        for (int64_t lane = seen; lane < count; lane++) to[lane] = -__builtin_inff();
      }
    });
  }
}

/// Scores of the tiles of keys that begin in a chunk, and each row's largest.
void scoreChunk(const Attention& a, const Block& block, const Room& room, int64_t chunk) {
  const int64_t pageSize = a.kv.shape().pageSize;
  const int64_t end = std::min(block.lastVisible(a), (chunk + 1) * kChunk);
  int64_t position = chunk * kChunk;
  if (position % pageSize % kKeyTile != 0) {  // inside a tile, which belongs to the chunk before
    const int64_t inPage = position % pageSize;
    position += std::min(pageSize - inPage, kKeyTile - inPage % kKeyTile);
  }
  const int64_t begin = position;
  while (position < end) {
    const int64_t inPage = position % pageSize;
    const int64_t count = std::min<int64_t>(kKeyTile, pageSize - inPage);
    decodeKeys(a.kv, {a.layer, block.pages[position / pageSize], block.keyHead}, inPage / kKeyTile, room.panel);
    scoreTile(a, block, room, position, std::min(count, block.lastVisible(a) - position));
    position += count;
  }
  position = std::min(position, block.lastVisible(a));
  for (int64_t r = 0; r < block.rows; r++) {
    float* scores = room.scores + r * room.stride;
    if (position == block.lastVisible(a)) std::fill_n(scores + position, 16, -__builtin_inff());
    room.largest[chunk * block.rows + r] = largestOf(scores + begin, position - begin);
  }
}

/// Turns a chunk's scores into softmax numerators, and adds what it contributes to sums [rows][paddedDim].
void weighChunk(const Attention& a, const Block& block, const Room& room, int64_t chunk, float* sums) {
  const int64_t pageSize = a.kv.shape().pageSize;
  const int64_t begin = chunk * kChunk;
  const int64_t end = std::min(block.lastVisible(a), begin + kChunk);
  for (int64_t r = 0; r < block.rows; r++) {
    float best = -__builtin_inff();
    for (int64_t c = 0; c < block.chunks(a); c++) {
      const float other = room.largest[c * block.rows + r];
      best = other > best ? other : best;
    }
    float* scores = room.scores + r * room.stride;
    Row16 total{};
    for (int64_t p = begin; p < end; p += 16) {
      Row16 e = load16(scores + p);
      for (int i = 0; i < kParts; i++) {
        e.part[i] = exp(e.part[i] - best);
        total.part[i] += e.part[i];
        if (a.fp8) e.part[i] = roundE4m3(e.part[i] * 448.0f);
      }
      store16(scores + p, e);
    }
    room.sums[chunk * block.rows + r] = sum16(total);
  }
  for (int64_t position = begin; position < end; position += kValueRows) {
    const int64_t count = std::min(kValueRows, end - position);
    for (int64_t i = 0; i < count; i++) {
      const int64_t p = position + i;
      decodeValue(a.kv, {a.layer, block.pages[p / pageSize], block.keyHead}, p % pageSize, room.panel + i * a.paddedDim);
    }
    // Rows that don't see all of these values stop early: a masked value may be NaN, and 0·NaN isn't 0.
    const bool all = block.visible(a, 0) >= position + count;
    const int64_t step = all ? rowStep(block.rows) : 1;
    for (int64_t first = 0; first < block.rows; first += step) {
      const int64_t rows = std::min<int64_t>(step, block.rows - first);
      const int64_t seen = all ? count : std::clamp<int64_t>(block.visible(a, first) - position, 0, count);
      withRows(rows, [&](auto constant) __attribute__((always_inline)) {
        constexpr int kCount = constant;
        for (int64_t d = 0; d < a.paddedDim; d += 16) {
          Row16 partial[kCount];
          for (int i = 0; i < kCount; i++) partial[i] = load16(sums + (first + i) * a.paddedDim + d);
          multiply<kCount>(room.scores + first * room.stride + position, room.stride, 1, room.panel + d, a.paddedDim,
                           seen, partial);
          for (int i = 0; i < kCount; i++) store16(sums + (first + i) * a.paddedDim + d, partial[i]);
        }
      });
    }
  }
}

/// out = Σ chunks / Σ numerators; totals [rows][paddedDim].
void finishBlock(const Attention& a, const Block& block, const Room& room, float* totals) {
  const int64_t size = static_cast<int64_t>(sizeOf(a.out.dtype));
  for (int64_t r = 0; r < block.rows; r++) {
    float denominator = 0;
    for (int64_t c = 0; c < block.chunks(a); c++) denominator += room.sums[c * block.rows + r];
    if (a.fp8) denominator *= 448;
    float* row = totals + r * a.paddedDim;
    for (int64_t d = 0; d < a.paddedDim; d += kWidth) store(row + d, load<VF>(row + d) / denominator);
    fromFloats(row, a.headDim, a.out.dtype, rowOf(a.out, block.token(a, r)) + block.head(a, r) * a.headDim * size);
  }
}

void addTo(float* totals, const float* partial, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) store(totals + i, load<VF>(totals + i) + load<VF>(partial + i));
}

Room makeRoom(OpContext& ctx, const Attention& a, int64_t rows, int64_t context, float* panel) {
  const int64_t chunks = (context + kChunk - 1) / kChunk;
  Room room;
  room.stride = static_cast<int64_t>(alignUp(context, 16)) + 16;
  room.q = ctx.scratchF32(rows * a.headDim);
  room.scores = ctx.scratchF32(rows * room.stride);
  room.largest = ctx.scratchF32(chunks * rows);
  room.sums = ctx.scratchF32(chunks * rows);
  room.panel = panel;
  return room;
}

/// Many blocks: each is one task.
void runBlocks(OpContext& ctx, const Attention& a, const Block* blocks, int64_t count, int64_t blockRows,
               int64_t longest) {
  const int64_t sumFloats = blockRows * a.paddedDim;
  float* sums = ctx.scratchF32(ctx.threads() * 2 * sumFloats);
  auto* rooms = static_cast<Room*>(ctx.scratch(ctx.threads() * sizeof(Room)));
  for (int w = 0; w < ctx.threads(); w++) {
    rooms[w] = makeRoom(ctx, a, blockRows, longest, ctx.scratchF32(panelFloats(a)));
  }
  ctx.parallelFor(count, [&](int64_t index, int worker) {
    const Block& block = blocks[count - 1 - index];  // the last rows see the most: long tasks first
    const Room& room = rooms[worker];
    float* totals = sums + worker * 2 * sumFloats;
    float* partial = totals + sumFloats;
    std::fill_n(totals, sumFloats, 0.0f);
    loadQueries(a, block, room.q);
    for (int64_t c = 0; c < block.chunks(a); c++) scoreChunk(a, block, room, c);
    for (int64_t c = 0; c < block.chunks(a); c++) {
      std::fill_n(partial, sumFloats, 0.0f);
      weighChunk(a, block, room, c, partial);
      addTo(totals, partial, sumFloats);
    }
    finishBlock(a, block, room, totals);
  });
}

/// Few blocks with long contexts, as in decoding: each chunk of each block is a task.
void runChunks(OpContext& ctx, const Attention& a, const Block* blocks, int64_t count, int64_t allChunks) {
  struct Work {
    Room room;
    float* sums;  ///< [chunks][rows][paddedDim]
  };
  struct Task {
    int64_t block;
    int64_t chunk;
  };
  auto* works = static_cast<Work*>(ctx.scratch(count * sizeof(Work)));
  auto* tasks = static_cast<Task*>(ctx.scratch(allChunks * sizeof(Task)));
  const int64_t panelSize = static_cast<int64_t>(alignUp(panelFloats(a), 16));
  float* panels = ctx.scratchF32(ctx.threads() * panelSize);
  int64_t next = 0;
  for (int64_t b = 0; b < count; b++) {
    const Block& block = blocks[b];
    works[b].room = makeRoom(ctx, a, block.rows, block.lastVisible(a), nullptr);
    works[b].sums = ctx.scratchF32(block.chunks(a) * block.rows * a.paddedDim);
    loadQueries(a, block, works[b].room.q);
    for (int64_t c = 0; c < block.chunks(a); c++) tasks[next++] = {b, c};
  }
  ctx.parallelFor(allChunks, [&](int64_t index, int worker) {
    const Task task = tasks[index];
    Room room = works[task.block].room;
    room.panel = panels + worker * panelSize;
    scoreChunk(a, blocks[task.block], room, task.chunk);
  });
  ctx.parallelFor(allChunks, [&](int64_t index, int worker) {
    const Task task = tasks[index];
    const int64_t size = blocks[task.block].rows * a.paddedDim;
    float* sums = works[task.block].sums + task.chunk * size;
    Room room = works[task.block].room;
    room.panel = panels + worker * panelSize;
    std::fill_n(sums, size, 0.0f);
    weighChunk(a, blocks[task.block], room, task.chunk, sums);
  });
  for (int64_t b = 0; b < count; b++) {
    const int64_t size = blocks[b].rows * a.paddedDim;
    for (int64_t c = 1; c < blocks[b].chunks(a); c++) addTo(works[b].sums, works[b].sums + c * size, size);
    finishBlock(a, blocks[b], works[b].room, works[b].sums);
  }
}

void checkSequence(OpContext& ctx, int64_t s, int64_t start, int64_t end, int64_t context, int64_t tokens,
                   const View& pageTable, const KvShape& shape) {
  const auto sequence = static_cast<long long>(s);
  if (end < start || end > tokens) ctx.fail("sequence %lld ends at token %lld", sequence, static_cast<long long>(end));
  if (context < end - start) ctx.fail("sequence %lld has more new tokens than context", sequence);
  const int64_t needed = (context + shape.pageSize - 1) / shape.pageSize;
  if (needed > pageTable.columns) ctx.fail("sequence %lld needs more pages than pageTable has columns", sequence);
  for (int64_t i = 0; i < needed; i++) {
    const int32_t page = pageTable.i32()[s * pageTable.columns + i];
    if (page < 0 || page >= shape.pages) ctx.fail("sequence %lld names page %d", sequence, page);
  }
}

void attention(OpContext& ctx) {
  const View& q = ctx.buffer("q");
  const View& out = ctx.buffer("out");
  const View& ends = ctx.buffer("queryEnds");
  const View& lengths = ctx.buffer("contextLengths");
  const View& pageTable = ctx.buffer("pageTable");
  const KvCache& kv = ctx.kv();
  const KvShape& shape = kv.shape();
  const auto heads = static_cast<int64_t>(ctx.number("numAttentionHeads"));
  const auto layer = static_cast<int64_t>(ctx.number("layer"));
  if (layer < 0 || layer >= shape.layers || heads < 1 || heads % shape.heads != 0) ctx.fail("it doesn't fit the cache");
  ctx.expect("q", q.rows, heads * shape.headDim);
  ctx.expect("out", q.rows, heads * shape.headDim);
  ctx.expect("contextLengths", ends.rows, 1);
  ctx.expect("pageTable", ends.rows, pageTable.columns);
  if (ctx.has("qScale")) ctx.expect("qScale", q.rows, heads);
  const Attention a{kv,
                    q,
                    ctx.has("qScale") ? ctx.buffer("qScale").f32() : nullptr,
                    out,
                    layer,
                    heads,
                    heads / shape.heads,
                    shape.headDim,
                    static_cast<int64_t>(alignUp(shape.headDim, 16)),
                    static_cast<float>(ctx.number("softmaxScale")),
                    ctx.textIs("probabilities", "e4m3")};

  int64_t longest = 0;
  for (int64_t s = 0, start = 0; s < ends.rows; start = ends.i32()[s++]) {
    checkSequence(ctx, s, start, ends.i32()[s], lengths.i32()[s], q.rows, pageTable, shape);
    longest = std::max<int64_t>(longest, lengths.i32()[s]);
  }
  const int64_t covered = ends.rows == 0 ? 0 : ends.i32()[ends.rows - 1];
  for (int64_t t = covered; t < q.rows; t++) std::memset(rowOf(out, t), 0, out.columns * sizeOf(out.dtype));

  const auto affordable = static_cast<int64_t>(kScoreBytes / (sizeof(float) * ctx.threads() * (longest + 32)));
  const int64_t blockRows = std::clamp<int64_t>(affordable, 1, kBlockRows);
  const auto forBlocks = [&](auto&& body) {
    for (int64_t s = 0, start = 0; s < ends.rows; start = ends.i32()[s++]) {
      const int64_t queries = ends.i32()[s] - start;
      const int32_t* pages = pageTable.i32() + s * pageTable.columns;
      for (int64_t head = 0; head < shape.heads; head++) {
        for (int64_t row = 0; row < queries * a.headsPerGroup; row += blockRows) {
          const int64_t rows = std::min(blockRows, queries * a.headsPerGroup - row);
          body(Block{pages, lengths.i32()[s], start, queries, head, row, rows});
        }
      }
    }
  };
  int64_t count = 0, allChunks = 0;
  size_t scoreBytes = 0;
  forBlocks([&](const Block& block) {
    count++;
    allChunks += block.chunks(a);
    scoreBytes += block.rows * (block.lastVisible(a) + 32) * sizeof(float);
  });
  if (count == 0) return;
  auto* blocks = static_cast<Block*>(ctx.scratch(count * sizeof(Block)));
  int64_t next = 0;
  forBlocks([&](const Block& block) { blocks[next++] = block; });
  if (count < 4 * ctx.threads() && allChunks > count && scoreBytes <= kScoreBytes) {
    runChunks(ctx, a, blocks, count, allChunks);
  } else {
    runBlocks(ctx, a, blocks, count, blockRows, longest);
  }
}

FIREQ_OP(attention, attention);

}  // namespace
}  // namespace fireq::FIREQ_ISA
