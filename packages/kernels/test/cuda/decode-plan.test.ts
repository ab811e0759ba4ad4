import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type DecodePlan,
  type DecodeShape,
  mergesWords,
  mostPieces,
  PIECE_WORDS,
  planDecode,
  RUN_WORDS,
} from '../../src/cuda/decode-plan.js'

const UNIT = 32
const MERGE = 12

interface Source {
  readonly block: number
  readonly warp: number
  readonly early: boolean
}

/** What a kernel that follows the plan would compute: of each segment its units in order, and how they meet. */
function follow(plan: DecodePlan, shape: DecodeShape, lengths: readonly number[], pages: readonly number[][]) {
  const { blocks, warps, keyHeads } = shape
  const done = new Map<string, number>() // units of a segment so far
  const sources = new Map<string, Source[]>()
  const whole = new Set<string>()
  const runUnits: number[] = []
  for (let v = 0; v < blocks * warps; v++) {
    const [count, firstPiece, units] = plan.runs.subarray(v * RUN_WORDS) as unknown as [number, number, number]
    const places: number[] = []
    for (let i = 0; i < count; i++) {
      const at = (firstPiece + i) * PIECE_WORDS
      const [sequence, head, part, start, first, taken, length, merge] = [...plan.pieces.subarray(at, at + PIECE_WORDS)]
      const name = `${sequence},${head},${part}`
      expect(start).toBe(places.length)
      expect(length).toBe(lengths[sequence!])
      expect(first).toBe(done.get(name) ?? 0)
      done.set(name, first! + taken!)
      for (let unit = first!; unit < first! + taken!; unit++) {
        places.push((pages[sequence!]![unit >> 1]! * keyHeads + head!) * 2 + (unit & 1))
      }
      if (merge === 0) {
        expect(whole.has(name)).toBe(false)
        expect(taken).toBe(Math.ceil(length! / UNIT))
        whole.add(name)
        continue
      }
      // Its sums have one of two places: none between a run's first and last piece may have any.
      expect(i === 0 || i === count - 1).toBe(true)
      const block = Math.floor(v / warps)
      const mergeAt = block * mergesWords(warps) + 4 + (merge! - 1) * MERGE
      expect([...plan.merges.subarray(mergeAt, mergeAt + 3)]).toEqual([sequence, head, part])
      const source = { block, warp: v % warps, early: i < count - 1 }
      sources.set(name, [...(sources.get(name) ?? []), source])
    }
    expect(units).toBe(places.length)
    const record = [...plan.runs.subarray(v * RUN_WORDS + 4, (v + 1) * RUN_WORDS)]
    const pieceAt = firstPiece * PIECE_WORDS
    if (count > 0)
      expect(record.slice(0, PIECE_WORDS)).toEqual([...plan.pieces.subarray(pieceAt, pieceAt + PIECE_WORDS)])
    expect(record.slice(PIECE_WORDS).slice(0, units)).toEqual(places.slice(0, 20))
    runUnits.push(units)
  }
  return { done, sources, whole, runUnits }
}

/** Of each segment, what its merges add up. */
function merged(plan: DecodePlan, { blocks, warps }: DecodeShape) {
  const found = new Map<
    string,
    { sources: Source[]; crossing: number; slots: number[]; firstSlot: number; count: number }
  >()
  for (let block = 0; block < blocks; block++) {
    const at = block * mergesWords(warps)
    const count = plan.merges[at]!
    expect(count).toBeLessThanOrEqual(warps + 1)
    for (let i = 0; i < count; i++) {
      const words = [...plan.merges.subarray(at + 4 + i * MERGE, at + 4 + (i + 1) * MERGE)]
      const [sequence, head, part, firstWarp, of, early, crossing, slot, firstSlot, slots] = words as [
        ...[number, number, number, number, number, number, number, number, number, number],
      ]
      const name = `${sequence},${head},${part}`
      const entry = found.get(name) ?? { sources: [], crossing, slots: [], firstSlot, count: slots }
      if (crossing >= 0) {
        expect(i === 0 || i === count - 1).toBe(true)
        expect(entry).toMatchObject({ crossing, firstSlot, count: slots })
        entry.slots.push(slot)
      }
      for (let s = 0; s < of; s++) {
        entry.sources.push({ block, warp: firstWarp + s, early: early === 1 && s === of - 1 })
      }
      found.set(name, entry)
    }
  }
  return found
}

const shapes = fc.record({
  keyHeads: fc.integer({ min: 1, max: 9 }),
  parts: fc.integer({ min: 1, max: 3 }),
  blocks: fc.integer({ min: 1, max: 20 }),
  warps: fc.integer({ min: 1, max: 12 }),
})
const lengthsOf = fc.oneof(
  fc.array(fc.integer({ min: 0, max: 2000 }), { minLength: 1, maxLength: 20 }),
  fc.array(fc.constantFrom(0, 1, 31, 32, 33, 64), { minLength: 1, maxLength: 40 }),
  fc
    .tuple(fc.integer({ min: 0, max: 700 }), fc.integer({ min: 1, max: 30 }))
    .map(([n, k]) => new Array<number>(k).fill(n)),
)

describe('the plan of a decode launch', () => {
  it('has every unit of every segment once, in order, and adds up all that are in pieces', () => {
    fc.assert(
      fc.property(shapes, lengthsOf, (shape, lengths) => {
        let page = 0
        const pages = lengths.map((length) => Array.from({ length: Math.ceil(length / 64) }, () => (page += 3)))
        const plan = planDecode(
          lengths.map((length, s) => ({ length, pages: pages[s]! })),
          shape,
        )
        const { done, sources, whole, runUnits } = follow(plan, shape, lengths, pages)
        const merges = merged(plan, shape)
        const crossings = new Set<number>()
        let slots = 0
        lengths.forEach((length, sequence) => {
          for (let head = 0; head < shape.keyHeads; head++) {
            for (let part = 0; part < shape.parts; part++) {
              const name = `${sequence},${head},${part}`
              expect(done.get(name)).toBe(Math.ceil(length / UNIT))
              expect(merges.get(name)?.sources).toEqual(sources.get(name))
              expect(sources.has(name)).toBe(!whole.has(name))
              const merge = merges.get(name)
              const crosses = new Set(merge?.sources.map(({ block }) => block)).size > 1
              expect((merge?.crossing ?? -1) >= 0).toBe(crosses)
              if (!crosses || merge === undefined) continue
              expect(merge.slots).toEqual(Array.from({ length: merge.count }, (_, i) => merge.firstSlot + i))
              slots = Math.max(slots, merge.firstSlot + merge.count)
              crossings.add(merge.crossing)
            }
          }
        })
        expect(Math.max(-1, ...crossings)).toBe(crossings.size - 1)
        expect(crossings.size).toBeLessThanOrEqual(shape.blocks)
        expect(slots).toBeLessThanOrEqual(2 * shape.blocks)
        expect(plan.pieces.length / PIECE_WORDS).toBeLessThanOrEqual(mostPieces(lengths.length, shape))
        // Balance: no run is much longer than the mean, or longer than one segment may be where segments stay whole.
        const total = lengths.reduce((sum, n) => sum + Math.ceil(n / UNIT) + 1, 0) * shape.keyHeads * shape.parts
        const share = Math.max(shape.warps, total / shape.blocks)
        expect(Math.max(...runUnits)).toBeLessThanOrEqual(Math.ceil((share * 1.1 + 2) / shape.warps) + 1)
      }),
      { numRuns: 120 },
    )
  })

  it('keeps equal segments whole where that leaves few multiprocessors idle', () => {
    const shape = { keyHeads: 8, parts: 1, blocks: 132, warps: 12 }
    for (const batch of [64, 128, 256]) {
      const sequences = Array.from({ length: batch }, () => ({ length: 1024, pages: new Array<number>(16).fill(0) }))
      const merges = merged(planDecode(sequences, shape), shape)
      expect([...merges.values()].every(({ crossing }) => crossing < 0)).toBe(true)
    }
  })

  it('spreads one long sequence over all multiprocessors, whatever is beside it', () => {
    const shape = { keyHeads: 8, parts: 1, blocks: 132, warps: 12 }
    const lengths = [100_000, 10, 0, 900, 64]
    const sequences = lengths.map((length) => ({ length, pages: new Array<number>(Math.ceil(length / 64)).fill(0) }))
    const plan = planDecode(sequences, shape)
    const units = Array.from({ length: 132 * 12 }, (_, v) => plan.runs[v * RUN_WORDS + 2]!)
    const mean = units.reduce((sum, n) => sum + n, 0) / units.length
    expect(Math.max(...units)).toBeLessThanOrEqual(mean + 2)
    expect(Math.min(...units)).toBeGreaterThan(mean / 3)
  })
})
