import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Merger } from '../../src/tokenizer/merger.js'
import { PairTable } from '../../src/tokenizer/pair-table.js'

type Pair = { left: number; right: number; rank: number; merged: number }

/** Byte pair encoding by its definition: look at all pairs, merge the best, again. */
function mergeByDefinition(symbols: number[], pairs: readonly Pair[]): number[] {
  const left = [...symbols]
  for (;;) {
    let best: { at: number; pair: Pair } | undefined
    for (let at = 0; at + 1 < left.length; at++) {
      const pair = pairs.find((candidate) => candidate.left === left[at] && candidate.right === left[at + 1])
      if (pair && (!best || pair.rank < best.pair.rank)) best = { at, pair }
    }
    if (!best) return left
    left.splice(best.at, 2, best.pair.merged)
  }
}

const anyPairs = fc.uniqueArray(
  fc.record({
    left: fc.nat(9),
    right: fc.nat(9),
    rank: fc.oneof(fc.nat(8), fc.constant(2 ** 20)),
    merged: fc.nat(9),
  }),
  { selector: ({ left, right }) => `${left} ${right}`, maxLength: 60 },
)

test('merging gives what the definition gives', () => {
  fc.assert(
    fc.property(anyPairs, fc.array(fc.integer({ min: -3, max: 9 }), { maxLength: 60 }), (pairs, symbols) => {
      const table = new PairTable()
      for (const { left, right, rank, merged } of pairs) table.set(left, right, rank, merged)
      const merged = Int32Array.from(symbols)
      const count = new Merger(table).merge(merged, symbols.length)
      expect([...merged.subarray(0, count)]).toEqual(mergeByDefinition(symbols, pairs))
    }),
    { numRuns: 1000 },
  )
})

test('a merger is as good after a long piece as before', () => {
  const table = new PairTable()
  table.set(1, 1, 0, 2)
  table.set(2, 2, 1, 3)
  const merger = new Merger(table)
  for (const length of [7, 5001, 7]) {
    const symbols = new Int32Array(length).fill(1)
    const count = merger.merge(symbols, length)
    expect([...symbols.subarray(0, count)]).toEqual([
      ...Array(length >> 2).fill(3),
      ...(length % 4 === 3 ? [2, 1] : [1]),
    ])
  }
})

test('a pair table holds what was put in, however many', () => {
  const table = new PairTable(1)
  const side = 300
  for (let left = 0; left < side; left++) {
    for (let right = 0; right < side; right++) table.set(left, right, left + right, left * side + right)
  }
  table.set(3, 4, 77, 78)
  expect(table.size).toBe(side * side)
  expect([table.rank(3, 4), table.merged(3, 4)]).toEqual([77, 78])
  let wrong = 0
  for (let left = 0; left < side; left++) {
    for (let right = 0; right < side; right++) {
      if (left === 3 && right === 4) continue
      if (table.rank(left, right) !== left + right || table.merged(left, right) !== left * side + right) wrong++
    }
  }
  expect(wrong).toBe(0)
  expect(table.rank(side, 0)).toBe(-1)
  expect(table.merged(0, side)).toBe(-1)
})
