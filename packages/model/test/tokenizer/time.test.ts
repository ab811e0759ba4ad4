import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { loadTokenizer } from '../../src/tokenizer/index.js'
import { splitWords } from '../../src/tokenizer/split-pattern.js'
import { testData } from '../data.js'
import { ABSENT, describeEachTokenizer, llama2Folder, llama3Folder } from './support.js'

const wikitext = testData('wikitext-2-raw')

/** Both texts that perplexities are measured on: the file as it is, and its lines joined as most papers do. */
function framings(split: string): { file: string; joined: string } {
  const file = readFileSync(testData('wikitext-2-raw', `wiki.${split}.raw`)!, 'utf8')
  const lines = file.replace(/\n$/, '').split('\n')
  return { file, joined: lines.map((line) => (line.trim() === '' ? '' : `${line}\n`)).join('\n\n') }
}

function timed<T>(run: () => T): [T, number] {
  const start = performance.now()
  return [run(), (performance.now() - start) / 1000]
}

describe.skipIf(!wikitext || !llama2Folder || !llama3Folder)(`WikiText-2 (skipped where it or ${ABSENT})`, () => {
  // Token counts with BOS, of an independent implementation.
  const counts: [string, string, number, number][] = [
    ['test', 'Llama 2', 341_469, 335_688],
    ['test', 'Llama 3', 289_077, 289_077],
    ['valid', 'Llama 2', 299_964, 295_043],
    ['valid', 'Llama 3', 252_853, 252_854],
  ]
  test.each(counts)('%s split, %s: counts, round trip, under 3 s', async (split, name, joinedCount, fileCount) => {
    const tokenizer = await loadTokenizer(name === 'Llama 2' ? llama2Folder! : llama3Folder!)
    const { file, joined } = framings(split)
    const [joinedIds, seconds] = timed(() => tokenizer.encode(joined, { addBos: true }))
    const fileIds = tokenizer.encode(file, { addBos: true })
    expect([joinedIds.length, fileIds.length]).toEqual([joinedCount, fileCount])
    expect(tokenizer.decode(fileIds, { skipSpecial: true }) === file).toBe(true)
    expect(seconds).toBeLessThan(3)
  })
})

await describeEachTokenizer('a megabyte of one thing', (tokenizer) => {
  // Encoding takes about 0.1 to 1 s; a quadratic algorithm would take hours.
  const units = ['a', ' ', '\n', '\u{1f999}', '\ud83e', 'a ', '<|']
  test.each(units)('%j', (unit) => {
    const text = unit.repeat(1_000_000 / unit.length)
    const [ids, seconds] = timed(() => tokenizer.encode(text, { parseSpecial: true }))
    expect(seconds).toBeLessThan(10)
    expect(tokenizer.decode(ids) === text.replace(/\p{Surrogate}/gu, '\ufffd')).toBe(true)
  })
})

test('a run of 16 million characters is one word, or refused with a reason', () => {
  const text = '\u{1f999}'.repeat(8_000_000)
  try {
    expect([...splitWords(text)].map((word) => word.length)).toEqual([text.length])
  } catch (error) {
    expect(error).toBeInstanceOf(RangeError)
    expect((error as Error).message).toMatch(/received an unbroken run of millions of characters/)
  }
})
