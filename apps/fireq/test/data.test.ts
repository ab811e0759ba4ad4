import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { defaultFraming, frameText } from '../src/data/framing.js'
import { loadTokens } from '../src/data/load-tokens.js'
import { parseTokenFile } from '../src/data/token-file.js'
import { root } from './support.js'

const data = process.env.FIREQ_TEST_DATA ?? join(root, '..', 'shared', 'data')
const wikitext = join(data, 'wikitext-2-raw', 'wiki.test.raw')

describe('framing', () => {
  it('hf joins rows as the data set library and GPTQ do', () => {
    // Rows of `wikitext-2-raw-v1`: "", " = Title = \n", "", " Text . \n"; then "\n\n".join(rows).
    expect(frameText(' \n = Title = \n \n Text . \n', 'hf')).toBe('\n\n = Title = \n\n\n\n\n Text . \n')
    expect(frameText('a\nb', 'hf')).toBe('a\n\n\nb\n')
  })

  it('file leaves a text as it is', () => {
    expect(frameText('\ufeffa\r\n \n', 'file')).toBe('\ufeffa\r\n \n')
  })

  it('is hf for WikiText files only, unless said', () => {
    expect([defaultFraming('x/wiki.test.raw'), defaultFraming('x.txt'), defaultFraming('raw')]).toEqual([
      'hf',
      'file',
      'file',
    ])
  })

  it.skipIf(!existsSync(wikitext))(
    'of WikiText-2 gives the counts that papers have (needs ../shared/data)',
    async () => {
      expect(frameText(readFileSync(wikitext, 'utf8'), 'hf')).toHaveLength(1_294_336)
      const llama2 = { dir: join(data, 'llama2-tokenizer'), vocabSize: 32000 }
      expect((await loadTokens(wikitext, llama2)).ids).toHaveLength(341_469)
      expect((await loadTokens(wikitext, llama2, 'file')).ids).toHaveLength(335_688)
      await expect(loadTokens(wikitext, { ...llama2, vocabSize: 31000 })).rejects.toThrow(
        /Expected a tokenizer of 31000 ids/,
      )
    },
  )
})

describe('a file of tokens', () => {
  const bytes = Uint8Array.of(1, 0, 2, 1, 255, 255, 0, 0)

  it('holds 16 bits a token, or 32 where the vocabulary needs them', () => {
    expect(parseTokenFile('f', bytes, 65536)).toEqual(Int32Array.of(1, 258, 65535, 0))
    expect(parseTokenFile('f', Uint8Array.of(1, 0, 1, 0), 128256)).toEqual(Int32Array.of(65537))
  })

  it('holds whole tokens of the vocabulary only', () => {
    expect(() => parseTokenFile('f', bytes, 65535)).toThrow(
      'f: Expected token ids below the vocabulary of 65535 but id 2 is 65535',
    )
    expect(() => parseTokenFile('f', bytes.subarray(0, 6), 128256)).toThrow('token ids of 32 bits but received 6 bytes')
    // The largest of 32 bits must not turn negative.
    expect(() => parseTokenFile('f', new Uint8Array(4).fill(255), 128256)).toThrow('id 0 is 4294967295')
  })
})
