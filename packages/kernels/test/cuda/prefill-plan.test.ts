import { describe, expect, it } from 'vitest'
import { planDirectPrefill, planPrefill } from '../../src/cuda/prefill-plan.js'
import { Random } from '../conformance/random.js'

const rowsOf = (values: Int32Array) =>
  Array.from({ length: values.length / 4 }, (_, i) => [...values.subarray(4 * i, 4 * i + 4)])

describe('the plan of a prefill', () => {
  it('cuts where tiles of the context end', () => {
    const { work } = planPrefill([{ length: 300, newTokens: 170 }], 1, 128, 1)
    expect(rowsOf(work)).toEqual([
      [0, 126, 44, 257],
      [0, 0, 126, 131],
    ])
  })

  it('covers every query and head once, what sees most first, and every tile of its context', () => {
    const sequences = [
      { length: 300, newTokens: 300 },
      { length: 64, newTokens: 0 },
      { length: 1000, newTokens: 77 },
      { length: 1, newTokens: 1 },
    ]
    const { tiles, work, blocks } = planPrefill(sequences, 4, 128, 1)
    expect(blocks).toBe(1)
    expect(rowsOf(tiles)).toEqual([
      ...[0, 1, 2].map((tile) => [0, tile, 300, 0]),
      ...[0, 1, 2, 3, 4, 5, 6, 7].map((tile) => [2, tile, 1000, 923]),
      [3, 0, 1, 0],
    ])
    const heads = (tile: number, token: number, queries: number, sees: number) =>
      [0, 1, 2, 3].map((head) => [tile, token * 4 + head, queries, sees])
    expect(rowsOf(work)).toEqual([
      ...heads(3, 300, 77, 924),
      ...heads(0, 256, 44, 257),
      ...heads(0, 128, 128, 129),
      ...heads(0, 0, 128, 1),
      ...heads(11, 377, 1, 1),
    ])
  })

  it('gives no work no blocks', () => {
    const { work, blocks } = planPrefill([{ length: 5, newTokens: 0 }], 4, 128, 132)
    expect([work.length, blocks]).toEqual([0, 0])
  })

  it('shares whatever lengths: the same items as one block has, those without queries last, and all blocks get about as much', () => {
    const random = new Random(Date.now() % 2 ** 32)
    for (let round = 0; round < 50; round++) {
      const lengths = Array.from({ length: random.int(1, 12) }, () => random.int(1, 2000))
      const sequences = lengths.map((length) => ({ length, newTokens: random.int(1, length) }))
      const heads = random.int(1, 32)
      const { work, blocks } = planPrefill(sequences, heads, 128, 132)
      const items = rowsOf(work)
      const real = items.filter(([, , queries]) => queries! > 0)
      const one = rowsOf(planPrefill(sequences, heads, 128, 1).work)
      const what = `seed ${random.seed}, round ${round}`
      expect(real.map(String).sort(), what).toEqual(one.map(String).sort())
      expect(items.length % blocks, what).toBe(0)
      expect(items.length - real.length, what).toBeLessThan(blocks)
      const empty = items.findIndex(([, , queries]) => queries === 0)
      if (empty >= 0) expect(empty, what).toBeGreaterThanOrEqual(items.length - blocks)
      const loads = new Float64Array(blocks)
      const costs = items.map(([, , queries, sees]) =>
        queries === 0 ? 0 : 2 + Math.ceil((queries! + sees! - 1) / 128),
      )
      costs.forEach((cost, i) => {
        loads[i % blocks]! += cost
      })
      expect(Math.max(...loads) - Math.min(...loads), what).toBeLessThanOrEqual(Math.max(...costs))
    }
  })
})

describe('the plan of a prefill over a BF16 cache', () => {
  it('covers every new token once, what sees most first', () => {
    const sequences = [
      { length: 60, newTokens: 60 },
      { length: 64, newTokens: 0 },
      { length: 1000, newTokens: 29 },
      { length: 1, newTokens: 1 },
    ]
    expect(rowsOf(planDirectPrefill(sequences, 28))).toEqual([
      [2, 88, 1, 1000],
      [2, 60, 28, 972],
      [0, 56, 4, 57],
      [0, 28, 28, 29],
      [0, 0, 28, 1],
      [3, 89, 1, 1],
    ])
    expect(planDirectPrefill([{ length: 5, newTokens: 0 }], 28).length).toBe(0)
  })
})
