import { PassThrough } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { oneLine } from '../src/errors.js'
import { globMatcher } from '../src/inspect/glob.js'
import { rowBlocks } from '../src/inspect/rows.js'
import { formatBytes, formatNumber, formatSeconds, formatWhole, printable } from '../src/terminal/format.js'
import { createProgress } from '../src/terminal/progress.js'
import { formatTable } from '../src/terminal/table.js'
import { hasControls } from './support.js'

/** A stream that remembers, and is a terminal if it is told so. */
function memory(isTTY: boolean): { stream: NodeJS.WriteStream; text: () => string } {
  const chunks: string[] = []
  const stream = new PassThrough().on('data', (chunk: Buffer) => chunks.push(chunk.toString()))
  const calls = { cursorTo: 'cursor', clearLine: 'clear', moveCursor: 'move' }
  Object.assign(
    stream,
    { isTTY, columns: 100 },
    Object.fromEntries(Object.keys(calls).map((name) => [name, () => true])),
  )
  return { stream: stream as unknown as NodeJS.WriteStream, text: () => chunks.join('') }
}

describe('progress', () => {
  it('is a plain line for each tenth where nobody looks on', () => {
    const { stream, text } = memory(false)
    let now = 0
    const progress = createProgress({ stream, now: () => now })
    for (let i = 0; i <= 100; i++) {
      progress.update(i / 100, `step ${i}`)
      now += 1
    }
    progress.stop()
    const lines = text().trimEnd().split('\n')
    expect(lines).toHaveLength(11)
    expect(lines[0]).toBe('  0 % · step 0')
    expect(lines[5]).toBe(' 50 % · step 50 · 50 s left')
    expect(lines[10]).toBe('100 % · step 100')
    expect(hasControls(text())).toBe(false)
  })

  it('says something every half minute, however slow', () => {
    const { stream, text } = memory(false)
    let now = 0
    const progress = createProgress({ stream, now: () => now })
    for (; now <= 100; now += 10) progress.update(0.001, 'slow', 7200)
    expect(text()).toBe('  0 % · slow · 2 h 00 min left\n'.repeat(4))
  })

  it('is a bar in a terminal, and goes away', () => {
    const { stream, text } = memory(true)
    const progress = createProgress({ stream, now: () => 0 })
    progress.update(0.5, 'layer 4 of 8', 61)
    expect(text()).toContain('██████████████░░░░░░░░░░░░░░  50 % · layer 4 of 8 · 1 min 01 s left')
    progress.stop()
    progress.stop()
  })

  it('is nothing when quiet', () => {
    const { stream, text } = memory(true)
    createProgress({ stream, quiet: true }).update(0.5, 'x')
    expect(text()).toBe('')
  })
})

describe('text for people', () => {
  it('has sizes, times and numbers', () => {
    expect([0, 512, 1000, 1024, 1536, 1023 * 1024, 16_269_672, 2 ** 40].map(formatBytes)).toEqual([
      ...['0 B', '512 B', '0.977 KiB', '1.00 KiB', '1.50 KiB', '0.999 MiB', '15.5 MiB', '1.00 TiB'],
    ])
    expect([0, 9.94, 59.4, 59.6, 3599, 7260].map(formatSeconds)).toEqual([
      ...['0.0 s', '9.9 s', '59 s', '1 min 00 s', '59 min 59 s', '2 h 01 min'],
    ])
    expect([1 / 3, 4.1258, 0, Number.NaN, -Infinity].map((v) => formatNumber(v))).toEqual([
      '0.3333',
      '4.126',
      '0',
      'NaN',
      '-Infinity',
    ])
    expect(formatWhole(8_130_816)).toBe('8,130,816')
  })

  it('cannot steer a terminal', () => {
    expect(printable('a\u001b[2Jb\u009b\n')).toBe('a\\u{1b}[2Jb\\u{9b}\\u{a}')
    expect(printable('a\tb\n', { keep: '\n\t' })).toBe('a\tb\n')
    expect(formatTable([{ title: 'x' }], [['\u001b']])).toBe('x\n\\u{1b}')
  })

  it('is a table without lines', () => {
    const table = formatTable(
      [{ title: 'name' }, { title: 'n', align: 'right' }],
      [
        ['a', '1'],
        ['long', '20'],
      ],
    )
    expect(table).toBe('name   n\na      1\nlong  20')
  })

  it('has errors in one line', () => {
    expect(oneLine(new Error("recipe x can't be used:\n  a: b\n  c: d"))).toBe("recipe x can't be used: a: b; c: d")
    expect(oneLine(new Error('one\ntwo'))).toBe('one; two')
    expect(oneLine('a \u001b[31m')).toBe('a \\u{1b}[31m')
  })
})

describe('a glob', () => {
  it.each([
    ['*.mlp.*', 'model.layers.0.mlp.up_proj.weight', true],
    ['model.norm.weight', 'model.norm.weight', true],
    ['model.norm.weight', 'model.norm.weightx', false],
    ['model?norm.weight', 'model.norm.weight', true],
    ['model.norm', 'modelxnorm', false],
    ['a(b', 'a(b', true],
    ['**', 'anything', true],
  ])('%s on %s: %s', (glob, name, matches) => {
    expect(globMatcher(glob)(name)).toBe(matches)
  })
})

describe('row blocks', () => {
  it('cover every row once, in bounded pieces', () => {
    const blocks = rowBlocks({ shape: [1000, 2 ** 14], values: 1000 * 2 ** 14 }) as [number, number][]
    expect(blocks.flatMap(([start, end]) => Array.from({ length: end - start }, (_, i) => start + i))).toEqual([
      ...Array(1000).keys(),
    ])
    for (const [start, end] of blocks) expect((end - start) * 2 ** 14).toBeLessThanOrEqual(2 ** 22)
    expect(rowBlocks({ shape: [7], values: 7 })).toEqual([undefined])
    expect(rowBlocks({ shape: [0, 5], values: 0 })).toEqual([])
    expect(rowBlocks({ shape: [2, 2 ** 23], values: 2 ** 24 })).toEqual([
      [0, 1],
      [1, 2],
    ])
  })
})
