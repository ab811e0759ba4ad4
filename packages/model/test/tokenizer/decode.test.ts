import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Tokenizer } from '../../src/tokenizer/index.js'
import { anyText, describeEachTokenizer } from './support.js'

const isLlama2 = (tokenizer: Tokenizer) => tokenizer.tokenToId('▁') !== undefined

function streamed(tokenizer: Tokenizer, ids: Iterable<number>, options?: Parameters<Tokenizer['stream']>[0]) {
  const decoder = tokenizer.stream(options)
  const parts = Array.from(ids, (id) => decoder.push(id))
  return [...parts, decoder.flush()]
}

await describeEachTokenizer('texts and ids', (tokenizer) => {
  const anyIds = fc.array(fc.nat(tokenizer.vocabSize - 1), { maxLength: 40 })

  test('decoding gives back the text', () => {
    fc.assert(
      fc.property(anyText, fc.boolean(), (text, parseSpecial) => {
        fc.pre(!isLlama2(tokenizer) || !text.includes('▁')) // which is its space
        // Llama 2 puts a space before the text after each special token, too, as its originals do.
        const ids = tokenizer.encode(text, { parseSpecial: parseSpecial && !isLlama2(tokenizer) })
        expect(tokenizer.decode(ids)).toBe(text)
        const bytes = Buffer.concat(Array.from(ids, (id) => tokenizer.idToBytes(id))).toString('utf8')
        expect(bytes).toBe(isLlama2(tokenizer) && text !== '' ? ` ${text}` : text)
      }),
      { numRuns: 300 },
    )
  })

  test('text from a user never becomes a special token', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        expect([...tokenizer.encode(text)].filter((id) => tokenizer.isSpecial(id))).toEqual([])
      }),
    )
    for (const [name, id] of tokenizer.specialTokens) {
      expect([...tokenizer.encode(name)]).not.toContain(id)
      expect([...tokenizer.encode(name, { parseSpecial: true })]).toEqual([id])
      expect([tokenizer.idToToken(id), tokenizer.tokenToId(name), tokenizer.isSpecial(id)]).toEqual([name, id, true])
    }
  })

  test('a lone surrogate is U+FFFD', () => {
    for (const text of ['\ud83e', 'a\udd99b', '\udd99\ud83e', ' \ud83e\ud83e🦙']) {
      expect([...tokenizer.encode(text)]).toEqual([...tokenizer.encode(text.replace(/\p{Surrogate}/gu, '\ufffd'))])
    }
  })

  test('one id at a time gives the text of all, and no half character', () => {
    const ofText = anyText.map((text) => [...tokenizer.encode(text, { addBos: true, parseSpecial: true })])
    const cut = fc
      .tuple(ofText, fc.nat(), fc.nat())
      .map(([ids, a, b]) => ids.slice(a % (ids.length + 1)).slice(0, b % 40))
    fc.assert(
      fc.property(fc.oneof(anyIds, ofText, cut), fc.boolean(), fc.boolean(), (ids, skipSpecial, continuation) => {
        const options = { skipSpecial, continuation }
        const parts = streamed(tokenizer, ids, options)
        expect(parts.join('')).toBe(tokenizer.decode(ids, options))
        for (const part of parts) expect(part).not.toMatch(/\p{Surrogate}/u)
      }),
      { numRuns: 500 },
    )
  })

  test('U+FFFD comes only for invalid bytes, and at the end for an unfinished character', () => {
    const llama = [...tokenizer.encode('🦙')]
    const bytes = Buffer.concat(llama.map((id) => tokenizer.idToBytes(id)))
    expect(bytes.toString().trim()).toBe('🦙')
    const whole = streamed(tokenizer, llama)
    expect(whole.slice(0, -2).join('')).toBe('')
    expect(whole.at(-2)).toBe('🦙')
    expect(whole.at(-1)).toBe('')
    const unfinished = streamed(tokenizer, llama.slice(0, -1))
    expect(unfinished.slice(0, -1).join('')).toBe('')
    expect(unfinished.at(-1)).toBe('\ufffd')
    const broken = streamed(tokenizer, [...llama.slice(0, -1), ...tokenizer.encode('a').slice(-1)])
    expect(broken.join('').replace(' ', '')).toBe('\ufffda')
  })

  test('a decoder can be used again after its end', () => {
    const decoder = tokenizer.stream()
    const ids = [...tokenizer.encode('the llama')]
    const read = () => ids.map((id) => decoder.push(id)).join('') + decoder.flush()
    expect([read(), read()]).toEqual(['the llama', 'the llama'])
  })

  test('what goes on from a prompt keeps its leading space', () => {
    const prompt = tokenizer.encode('the old')
    const all = tokenizer.encode('the old man')
    const rest = all.slice(prompt.length)
    expect([...all.slice(0, prompt.length)]).toEqual([...prompt])
    expect(tokenizer.decode(rest, { continuation: true })).toBe(' man')
    expect(streamed(tokenizer, rest, { continuation: true }).join('')).toBe(' man')
    expect(tokenizer.decode(rest)).toBe(isLlama2(tokenizer) ? 'man' : ' man')
  })

  test('every id has a token and bytes, and the token names the id', () => {
    let wrong = 0
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      if (tokenizer.tokenToId(tokenizer.idToToken(id)) !== id) wrong++
      if (tokenizer.idToBytes(id).length === 0) wrong++
    }
    expect(wrong).toBe(0)
    expect(tokenizer.tokenToId('no such token')).toBeUndefined()
  })

  test('an id out of the vocabulary is refused', () => {
    const decoder = tokenizer.stream({ skipSpecial: true })
    for (const id of [-1, tokenizer.vocabSize, 1.5, Number.NaN]) {
      const message = `Expected a token id from 0 to ${tokenizer.vocabSize - 1} but received ${id}`
      expect(() => tokenizer.decode([id])).toThrow(message)
      expect(() => tokenizer.decode([id], { skipSpecial: true })).toThrow(message)
      expect(() => decoder.push(id)).toThrow(message)
      expect(() => tokenizer.idToToken(id)).toThrow(message)
      expect(() => tokenizer.idToBytes(id)).toThrow(message)
    }
  })

  test('a caller may write to the bytes it got', () => {
    const [id] = tokenizer.encode('the')
    tokenizer.idToBytes(id).fill(0)
    expect(tokenizer.decode(tokenizer.encode('the'))).toBe('the')
  })
})
