import { describe, expect, it } from 'vitest'
import { cutWork } from '../../src/cuda/prefill-batch.js'

describe('the work of a prefill', () => {
  it('is cut where tiles of the context end', () => {
    const { work } = cutWork([{ length: 300, newTokens: 170 }], 1, 128)
    const pieces = Array.from({ length: work.length / 4 }, (_, i) => [...work.subarray(4 * i, 4 * i + 4)])
    expect(pieces).toEqual([
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
    const { tiles, work } = cutWork(sequences, 4, 128)
    expect(Array.from({ length: tiles.length / 4 }, (_, i) => [...tiles.subarray(4 * i, 4 * i + 4)])).toEqual([
      ...[0, 1, 2].map((tile) => [0, tile, 300, 0]),
      ...[0, 1, 2, 3, 4, 5, 6, 7].map((tile) => [2, tile, 1000, 923]),
      [3, 0, 1, 0],
    ])
    const pieces = Array.from({ length: work.length / 4 }, (_, i) => [...work.subarray(4 * i, 4 * i + 4)])
    const heads = (tile: number, token: number, queries: number, sees: number) =>
      [0, 1, 2, 3].map((head) => [tile, token * 4 + head, queries, sees])
    expect(pieces).toEqual([
      ...heads(3, 300, 77, 924),
      ...heads(0, 256, 44, 257),
      ...heads(0, 128, 128, 129),
      ...heads(0, 0, 128, 1),
      ...heads(11, 377, 1, 1),
    ])
  })
})
