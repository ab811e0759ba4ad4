import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { assembleStep, KvPool, KvPoolFullError, type KvSequence, ModelError } from '../src/index.js'

const usedPages = (sequences: readonly KvSequence[]): number => sequences.reduce((sum, s) => sum + s.pages.length, 0)

describe('KvPool', () => {
  test('takes a page exactly at the boundary', () => {
    const pool = new KvPool(3, 4)
    const sequence = pool.open()
    const pagesAfter = [3, 1, 1, 3, 4].map((count) => {
      pool.append(sequence, count)
      return sequence.pages.length
    })
    expect(pagesAfter).toEqual([1, 1, 2, 2, 3])
    expect(sequence.length).toBe(12)
    expect(() => pool.append(sequence, 1)).toThrow(KvPoolFullError)
    expect(sequence.length).toBe(12)
    pool.truncate(sequence, 8)
    expect(sequence.pages).toHaveLength(2)
    pool.append(sequence, 0)
    expect(pool.freePages).toBe(1)
    pool.checkIntegrity()
  })

  test('a closed sequence gives its pages back once and takes no more', () => {
    const pool = new KvPool(2, 4)
    const sequence = pool.open()
    pool.append(sequence, 8)
    pool.close(sequence)
    pool.close(sequence)
    expect(pool.freePages).toBe(2)
    expect(() => pool.append(sequence, 1)).toThrow(/open sequence/)
    expect(() => new KvPool(2, 4).append(pool.open(), 1)).toThrow(ModelError)
    pool.checkIntegrity()
  })

  test('refuses sizes and counts that are no sizes and counts', () => {
    for (const pages of [0, -1, 1.5, Number.NaN]) expect(() => new KvPool(pages, 4)).toThrow(/pages of a KV pool/)
    const pool = new KvPool(2, 4)
    const sequence = pool.open()
    for (const count of [-1, 0.5, Number.NaN]) expect(() => pool.append(sequence, count)).toThrow(/≥ 0 to append/)
    for (const length of [-1, 1, 0.5]) expect(() => pool.truncate(sequence, length)).toThrow(/from 0 to 0/)
  })

  test('checkIntegrity notices a page taken behind its back', () => {
    const pool = new KvPool(4, 4)
    const [a, b] = [pool.open(), pool.open()]
    pool.append(a, 4)
    pool.append(b, 4)
    ;(b.pages as number[])[0] = a.pages[0]!
    expect(() => pool.checkIntegrity()).toThrow(/owners/)
  })

  test('under random opening, growing, cutting and closing no page is lost or owned twice', () => {
    const action = fc.record({
      kind: fc.constantFrom('open', 'append', 'truncate', 'close'),
      which: fc.nat(),
      count: fc.nat(20),
    })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 7 }),
        fc.array(action),
        (pages, pageSize, actions) => {
          const pool = new KvPool(pages, pageSize)
          let open: KvSequence[] = []
          for (const { kind, which, count } of actions) {
            const sequence = open[which % Math.max(open.length, 1)]
            if (kind === 'open') open.push(pool.open())
            else if (sequence === undefined) continue
            else if (kind === 'close') {
              pool.close(sequence)
              open = open.filter((s) => s !== sequence)
            } else if (kind === 'truncate') pool.truncate(sequence, Math.min(count, sequence.length))
            else {
              const { length } = sequence
              const fits = Math.ceil((length + count) / pageSize) - sequence.pages.length <= pool.freePages
              if (fits) pool.append(sequence, count)
              else expect(() => pool.append(sequence, count)).toThrow(KvPoolFullError)
              expect(sequence.length).toBe(fits ? length + count : length)
            }
            pool.checkIntegrity()
            expect(pool.freePages + usedPages(open)).toBe(pages)
            expect(new Set(open.flatMap((s) => s.pages)).size).toBe(usedPages(open))
          }
          for (const sequence of open) pool.close(sequence)
          expect(pool.freePages).toBe(pages)
        },
      ),
    )
  })
})

describe('assembleStep', () => {
  test('lays sequences one after another', () => {
    const pool = new KvPool(8, 4)
    const [a, b] = [pool.open(), pool.open()]
    assembleStep(pool, [{ sequence: a, tokens: [1, 2, 3], outputs: 'none' }])
    const { feeds, outputEnds } = assembleStep(pool, [
      { sequence: a, tokens: [4, 5, 6], outputs: 'all' },
      { sequence: b, tokens: [7, 8] },
    ])
    const [[a0, a1], [b0]] = [a.pages, b.pages] as [[number, number], [number]]
    const plain = Object.fromEntries(Object.entries(feeds).map(([name, values]) => [name, [...values]]))
    expect(plain).toEqual({
      tokens: [4, 5, 6, 7, 8],
      positions: [3, 4, 5, 0, 1],
      slots: [4 * a0 + 3, 4 * a1, 4 * a1 + 1, 4 * b0, 4 * b0 + 1],
      queryEnds: [3, 5],
      contextLengths: [6, 2],
      pageTable: [a0, a1, b0, 0],
      outputRows: [0, 1, 2, 4],
    })
    expect(outputEnds).toEqual([3, 4])
  })

  test('appends for all entries or for none', () => {
    const pool = new KvPool(2, 4)
    const [a, b] = [pool.open(), pool.open()]
    const tokens = [1, 2, 3, 4, 5]
    expect(() =>
      assembleStep(pool, [
        { sequence: a, tokens },
        { sequence: b, tokens },
      ]),
    ).toThrow(KvPoolFullError)
    expect([a.length, b.length, pool.freePages]).toEqual([0, 0, 2])
    const step = assembleStep(pool, [{ sequence: a, tokens }])
    expect([a.length, pool.freePages]).toEqual([5, 0])
    step.rollBack()
    expect([a.length, pool.freePages]).toEqual([0, 2])
  })

  test.each([
    ['no entries', () => [], /at least one sequence/],
    ['no tokens', (s: KvSequence) => [{ sequence: s, tokens: [] }], /at least one new token for sequence 0/],
    ['a sequence twice', (s: KvSequence) => [1, 2].map((id) => ({ sequence: s, tokens: [id] })), /at most once/],
    [
      'a fractional id',
      (s: KvSequence) => [{ sequence: s, tokens: [1, 2.5] }],
      /token 1 of sequence 0 but received 2.5/,
    ],
    ['an output beyond', (s: KvSequence) => [{ sequence: s, tokens: [1], outputs: [1] }], /from 0 to 0 but received 1/],
  ])('refuses %s and leaves the pool alone', (_, entries, message) => {
    const pool = new KvPool(2, 4)
    const sequence = pool.open()
    expect(() => assembleStep(pool, entries(sequence))).toThrow(message)
    expect(pool.freePages).toBe(2)
  })
})
