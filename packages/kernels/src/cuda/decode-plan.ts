/** A unit of work: tokens of a sequence that a warp takes at once (kernels/cuda/attention_decode_plan.h). */
const UNIT_TOKENS = 32
/** Of a page. */
const PAGE_UNITS = 2
/** What beginning a segment costs, in units. */
const SEGMENT_COST = 1
/** How much longer than the mean a block's work may be where that keeps segments in one piece. */
const SLACK = 1.04
const FIRST_BLOCKS = 20

/** Sizes of the records, in 32-bit words. */
export const PIECE_WORDS = 8
const RUN_HEAD = 4 + PIECE_WORDS
export const RUN_WORDS: number = RUN_HEAD + FIRST_BLOCKS
const MERGE_WORDS = 12

export interface DecodeShape {
  readonly keyHeads: number
  /** Passes over a head's tokens, each for as many queries as the kernel takes. */
  readonly parts: number
  readonly blocks: number
  /** Of a block. */
  readonly warps: number
}

/** What kernels/cuda/attention_decode_plan.h says. */
export interface DecodePlan {
  /** [blocks, warps, RUN_WORDS] */
  readonly runs: Int32Array
  /** [blocks, mergesWords(warps)] */
  readonly merges: Int32Array
  /** [pieces, PIECE_WORDS] */
  readonly pieces: Int32Array
}

export interface DecodeSequence {
  readonly length: number
  /** In the order of its tokens. */
  readonly pages: ArrayLike<number>
}

export function mergesWords(warps: number): number {
  return 4 + (warps + 1) * MERGE_WORDS
}

/** Pieces at most: each run ends within a segment at most, and so does each segment. */
export function mostPieces(sequences: number, { keyHeads, parts, blocks, warps }: DecodeShape): number {
  return sequences * keyHeads * parts + blocks * warps
}

/**
 * Cuts the work of attention_decode: each warp gets a run of units, all alike in length. Segments stay within a block if that
 * costs little.
 */
export function planDecode(sequences: readonly DecodeSequence[], shape: DecodeShape): DecodePlan {
  const { keyHeads, parts, blocks, warps } = shape
  const perSequence = keyHeads * parts
  const count = sequences.length * perSequence
  const unitsOf = Int32Array.from(sequences, ({ length }) => Math.ceil(length / UNIT_TOKENS))
  // Segment s has the weights from starts[s] on: SEGMENT_COST, then one a unit.
  const starts = new Float64Array(count + 1)
  for (let s = 0; s < count; s++) starts[s + 1] = starts[s]! + SEGMENT_COST + unitsOf[Math.floor(s / perSequence)]!
  const cuts = cutRuns(starts, blocks, warps)
  const plan = {
    runs: new Int32Array(blocks * warps * RUN_WORDS),
    merges: new Int32Array(blocks * mergesWords(warps)),
    pieces: new Int32Array(mostPieces(sequences.length, shape) * PIECE_WORDS),
  }
  let [segment, pieces] = [0, 0]
  for (let v = 0; v < blocks * warps; v++) {
    const [from, to] = [cuts[v]!, cuts[v + 1]!]
    const firstPiece = pieces
    let units = 0
    while (segment < count && starts[segment]! < to) {
      const sequence = Math.floor(segment / perSequence)
      const [all, firstUnit] = [unitsOf[sequence]!, starts[segment]! + SEGMENT_COST]
      const first = Math.max(0, from - firstUnit)
      const taken = Math.max(0, Math.min(all, to - firstUnit) - first)
      if (taken > 0 || (all === 0 && starts[segment]! >= from)) {
        const { length, pages } = sequences[sequence]!
        const [keyHead, part] = [Math.floor((segment % perSequence) / parts), segment % parts]
        const run = v * RUN_WORDS + RUN_HEAD
        for (let i = 0; i < taken && units + i < FIRST_BLOCKS; i++) {
          const unit = first + i
          plan.runs[run + units + i] =
            (pages[Math.floor(unit / PAGE_UNITS)]! * keyHeads + keyHead) * PAGE_UNITS + (unit % PAGE_UNITS)
        }
        put(
          plan.pieces,
          pieces * PIECE_WORDS,
          sequence,
          keyHead,
          part,
          units,
          first,
          taken,
          length,
          Number(taken < all),
        )
        units += taken
        pieces++
      }
      if (starts[segment + 1]! > to) break
      segment++
    }
    put(plan.runs, v * RUN_WORDS, pieces - firstPiece, firstPiece, units, 0)
  }
  planMerges(plan, warps)
  for (let at = 0; at < plan.runs.length; at += RUN_WORDS) {
    const first = plan.runs[at + 1]! * PIECE_WORDS
    for (let i = 0; i < PIECE_WORDS && plan.runs[at]! > 0; i++) plan.runs[at + 4 + i] = plan.pieces[first + i]!
  }
  return { ...plan, pieces: plan.pieces.subarray(0, pieces * PIECE_WORDS) }
}

/** Sums of the pieces that aren't whole segments: a merge a block and segment, and slots for those of segments that cross blocks. */
function planMerges({ runs, merges, pieces }: DecodePlan, warps: number): void {
  const words = mergesWords(warps)
  let [segment, crossing, slot] = [-1, 0, 0] // segment: its first piece
  let group: number[] = [] // where the segment's merges are
  const endGroup = (): void => {
    if (group.length > 1) {
      const first = slot
      for (const merge of group) put(merges, merge + 6, crossing, slot++, first, group.length)
      crossing++
    }
    group = []
  }
  const isSame = (a: number, b: number): boolean =>
    pieces[a] === pieces[b] && pieces[a + 1] === pieces[b + 1] && pieces[a + 2] === pieces[b + 2]
  for (let v = 0; v < runs.length / RUN_WORDS; v++) {
    const [count, firstPiece] = [runs[v * RUN_WORDS]!, runs[v * RUN_WORDS + 1]!]
    const [block, warp] = [Math.floor(v / warps) * words, v % warps]
    for (let i = 0; i < count; i++) {
      const piece = (firstPiece + i) * PIECE_WORDS
      if (pieces[piece + 7] === 0) continue
      if (segment < 0 || !isSame(piece, segment)) endGroup()
      segment = piece
      if (group.length === 0 || warp === 0) {
        const merge = block + 4 + merges[block]++ * MERGE_WORDS
        put(merges, merge, pieces[piece]!, pieces[piece + 1]!, pieces[piece + 2]!, warp, 0, 0, -1, 0, 0, 0)
        group.push(merge)
      }
      const merge = group.at(-1)!
      merges[merge + 4]!++
      merges[merge + 5] = Number(i + 1 < count)
      pieces[piece + 7] = merges[block]! // the block's last one so far
    }
  }
  endGroup()
}

/** Writes words from `at` on. */
function put(to: Int32Array, at: number, ...words: readonly number[]): void {
  for (let i = 0; i < words.length; i++) to[at + i] = words[i]!
}

/** Where runs begin, in weights; the last entry is the end of all. */
function cutRuns(starts: Float64Array, blocks: number, warps: number): Float64Array {
  const total = starts.at(-1)!
  const used = Math.max(1, Math.min(blocks, Math.floor(total / warps))) // no run in the middle is empty
  const ends =
    wholeSegments(starts, used) ?? Array.from({ length: used }, (_, b) => Math.round(((b + 1) * total) / used))
  const cuts = new Float64Array(blocks * warps + 1).fill(total)
  let [from, segment] = [0, 0]
  for (const [b, to] of ends.entries()) {
    const block = cuts.subarray(b * warps, (b + 1) * warps)
    while (starts[segment]! < from) segment++
    let most = Math.max(1, Math.floor((to - from) / warps) - SEGMENT_COST)
    while (!fillRuns(block, starts, segment, from, to, most)) most++
    from = to
  }
  return cuts
}

/**
 * Where a block's runs begin if each takes `most` units: every run begins a piece, so only further segments' beginnings count as
 * units. `segment` is the first that begins in the block. → whether that is all of the block's work.
 */
function fillRuns(
  cuts: Float64Array,
  starts: Float64Array,
  segment: number,
  from: number,
  to: number,
  most: number,
): boolean {
  let at = from
  for (let w = 0; w < cuts.length; w++) {
    cuts[w] = at
    while (starts[segment]! < at) segment++
    at = Math.min(to, at + most + (starts[segment] === at ? SEGMENT_COST : 0))
  }
  return at === to
}

/** Ends of blocks' work if none has a piece of a segment; undefined if that's more than SLACK longer. */
function wholeSegments(starts: Float64Array, blocks: number): number[] | undefined {
  const most = Math.ceil((starts.at(-1)! / blocks) * SLACK)
  const ends: number[] = []
  let from = 0
  for (let s = 1; s < starts.length; s++) {
    if (starts[s]! - from <= most) continue
    if (starts[s - 1] === from || starts[s]! - starts[s - 1]! > most) return undefined
    ends.push(starts[s - 1]!)
    from = starts[s - 1]!
  }
  ends.push(starts.at(-1)!)
  return ends.length <= blocks ? ends : undefined
}
