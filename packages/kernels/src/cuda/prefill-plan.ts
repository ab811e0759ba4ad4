/** Tokens of a decoded tile (kernels/cuda/attention_prefill_tiles.cuh). */
const TILE_TOKENS = 128
/** What an item costs beside its tiles, in tiles. */
const ITEM_COST = 2

/** [sequence's first tile (or the sequence), first query's row, queries, tokens that the first one sees] */
type Item = readonly [place: number, row: number, queries: number, sees: number]

/** What kernels/cuda/attention_prefill_feed.cuh says of its `tiles` and `work`. */
export interface PrefillPlan {
  /** [tiles, 4]: sequence, tile of the sequence, the sequence's tokens, the first new one. */
  readonly tiles: Int32Array
  /** [rows, blocks, 4]: items; in the last row some may have no queries. */
  readonly work: Int32Array
  readonly blocks: number
}

export interface PrefillLength {
  readonly length: number
  readonly newTokens: number
}

/**
 * Cuts the new tokens of all heads into items of `queries` at most, and shares them among the blocks of a launch: those that see most
 * first, an item a block and row, the row's longest to those blocks that have least.
 */
export function planPrefill(
  sequences: readonly PrefillLength[],
  numAttentionHeads: number,
  queries: number,
  multiprocessors: number,
): PrefillPlan {
  const { tiles, pieces } = cutSequences(sequences, queries)
  pieces.sort((a, b) => b[2] + b[3] - (a[2] + a[3]))
  const items = pieces.flatMap(([tile, token, count, sees]) =>
    Array.from({ length: numAttentionHeads }, (_, head): Item => [tile, token * numAttentionHeads + head, count, sees]),
  )
  const blocks = Math.min(items.length, multiprocessors)
  return { tiles, work: share(items, blocks), blocks }
}

/**
 * For attention_prefill_direct.cuh: [items, 4] of a sequence, its first new token's row, new tokens (`tokens` at most), and tokens that the
 * first one sees; those that see most first.
 */
export function planDirectPrefill(sequences: readonly PrefillLength[], tokens: number): Int32Array {
  const items: Item[] = []
  let row = 0
  sequences.forEach(({ length, newTokens }, s) => {
    for (let at = 0; at < newTokens; at += tokens)
      items.push([s, row + at, Math.min(tokens, newTokens - at), length - newTokens + at + 1])
    row += newTokens
  })
  items.sort((a, b) => b[2] + b[3] - (a[2] + a[3]))
  return Int32Array.from(items.flat())
}

/** A piece ends where a tile of its context does, so that one tile alone hides tokens from some of its queries. */
function cutSequences(sequences: readonly PrefillLength[], queries: number): { tiles: Int32Array; pieces: Item[] } {
  const tiles: number[] = []
  const pieces: Item[] = []
  let token = 0
  sequences.forEach(({ length, newTokens }, s) => {
    if (newTokens === 0) return
    const firstTile = tiles.length / 4
    for (let tile = 0; tile * TILE_TOKENS < length; tile++) tiles.push(s, tile, length, length - newTokens)
    for (let at = 0; at < newTokens; ) {
      const before = length - newTokens + at
      const count = Math.min(queries - (before % queries), newTokens - at)
      pieces.push([firstTile, token + at, count, before + 1])
      at += count
    }
    token += newTokens
  })
  return { tiles: Int32Array.from(tiles), pieces }
}

function share(items: readonly Item[], blocks: number): Int32Array {
  const rows = blocks === 0 ? 0 : Math.ceil(items.length / blocks)
  const work = new Int32Array(rows * blocks * 4)
  const load = new Float64Array(blocks)
  const order = Array.from(load.keys())
  for (let row = 0; row < rows; row++) {
    order.sort((a, b) => load[a]! - load[b]!)
    items.slice(row * blocks, (row + 1) * blocks).forEach((item, i) => {
      const block = order[i]!
      work.set(item, (row * blocks + block) * 4)
      load[block]! += ITEM_COST + Math.ceil((item[2] + item[3] - 1) / TILE_TOKENS)
    })
  }
  return work
}
