import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Tokenizer as Oracle } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseTokenizerJson, parseTokenizerModel } from '../../src/tokenizer/index.js'
import { anyText, littleSentencePiece, littleTokenizerJson, standinFolder, type TokenizerJson } from './support.js'

const metaspace = (more: object): TokenizerJson => ({
  ...littleTokenizerJson(),
  normalizer: null,
  pre_tokenizer: { type: 'Metaspace', replacement: '▁', ...more },
})

const little = littleTokenizerJson()
const files: [string, string][] = [
  ['the stand-in', readFileSync(join(standinFolder, 'tokenizer.json'), 'utf8')],
  ['Prepend and Replace', JSON.stringify(little)],
  [
    'merges as pairs',
    JSON.stringify({
      ...little,
      model: { ...little.model, merges: little.model.merges.map((m) => String(m).split(' ')) },
    }),
  ],
  ['Metaspace, always', JSON.stringify(metaspace({ prepend_scheme: 'always', split: false }))],
  ['Metaspace, first', JSON.stringify(metaspace({ prepend_scheme: 'first', split: false }))],
  ['Metaspace, never', JSON.stringify(metaspace({ prepend_scheme: 'never', split: false }))],
]

describe.each(files)('@huggingface/tokenizers on %s', (_name, json) => {
  const tokenizer = parseTokenizerJson(json)
  const oracle = new Oracle(JSON.parse(json), {})

  test('encodes alike', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        // The oracle takes JavaScript's \s, which isn't the Unicode white space of the originals.
        fc.pre(!/[\u0085\ufeff\u017f]/.test(text))
        const ids = tokenizer.encode(text, { addBos: true, parseSpecial: true })
        expect([...ids], JSON.stringify(text)).toEqual(oracle.encode(text).ids)
      }),
      { numRuns: 400 },
    )
  })

  test('decodes alike', () => {
    fc.assert(
      fc.property(anyText, fc.boolean(), (text, skipSpecial) => {
        const ids = tokenizer.encode(text, { addBos: true, parseSpecial: true })
        const decoded = oracle.decode([...ids], {
          skip_special_tokens: skipSpecial,
          clean_up_tokenization_spaces: false,
        })
        expect(tokenizer.decode(ids, { skipSpecial }), JSON.stringify(text)).toBe(decoded)
      }),
      { numRuns: 200 },
    )
  })
})

test('one vocabulary as SentencePiece model and as tokenizer.json gives the same ids', () => {
  const model = parseTokenizerModel(littleSentencePiece())
  const json = parseTokenizerJson(JSON.stringify(little))
  fc.assert(
    fc.property(anyText, fc.boolean(), (text, parseSpecial) => {
      const ids = model.encode(text, { parseSpecial })
      expect([...ids], JSON.stringify(text)).toEqual([...json.encode(text, { parseSpecial })])
      expect(model.decode(ids)).toBe(json.decode(ids))
    }),
    { numRuns: 500 },
  )
})

test('Metaspace before the first segment only, and split at every space', () => {
  const first = parseTokenizerJson(JSON.stringify(metaspace({ prepend_scheme: 'first', split: false })))
  const spell = (ids: Int32Array) => [...ids].map((id) => first.idToToken(id)).join(' ')
  expect(spell(first.encode('the</s>the  a', { parseSpecial: true }))).toBe('▁the </s> the ▁▁ a')
  expect(spell(first.encode(' the'))).toBe('▁the')
  expect(spell(first.encode('</s>the', { parseSpecial: true }))).toBe('</s> the')
  const split = parseTokenizerJson(JSON.stringify(metaspace({ add_prefix_space: true })))
  expect(spell(split.encode('the    a'))).toBe('▁the ▁ ▁ ▁ ▁a')
  const whole = parseTokenizerJson(JSON.stringify(metaspace({ add_prefix_space: true, split: false })))
  expect(spell(whole.encode('the     a'))).toBe('▁the ▁▁▁▁ ▁a')
})
