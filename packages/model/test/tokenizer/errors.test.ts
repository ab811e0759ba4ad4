import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadTokenizer, parseTokenizerJson, parseTokenizerModel } from '../../src/tokenizer/index.js'
import { littlePieces, littleSentencePiece, littleTiktoken, littleTokenizerJson } from './support.js'

/** Whatever a damaged file does, it does with an error of ours, not with one of the engine's. */
function expectCleanly(run: () => unknown): void {
  try {
    run()
  } catch (error) {
    expect((error as Error).message).toMatch(/^Expected /)
  }
}

describe('SentencePiece model', () => {
  const file = littleSentencePiece()

  test('the file without faults is read', () => {
    const tokenizer = parseTokenizerModel(file)
    expect([...tokenizer.encode('the', { addBos: true })]).toEqual([1, littlePieces.indexOf('▁the')])
  })

  test.each([
    [{ modelType: 1 }, /received model type unigram instead of BPE/],
    [{ byteFallback: 0 }, /received one without byte fallback/],
    [{ removeExtraSpaces: 1 }, /received one that removes extra spaces/],
    [{ charsmap: 'rules' }, /received one with normalization rules/],
    [{ bosId: 5 }, /control piece for the beginning-of-text id 5 but received byte/],
    [{ bosId: 99_999 }, /control piece for the beginning-of-text id 99999 but received none/],
    [{ pieces: [{ text: 'the', score: 0, type: 1 }] }, /distinct pieces but pieces \d+ and \d+ are both the/],
    [{ pieces: [{ text: '', score: 0, type: 1 }] }, /1 to 1024 characters for piece \d+ but received 0/],
    [
      { pieces: [{ text: 'x'.repeat(1025), score: 0, type: 1 }] },
      /1 to 1024 characters for piece \d+ but received 1025/,
    ],
    [{ pieces: [{ text: 'x', score: Number.NaN, type: 1 }] }, /finite score for piece \d+ but received NaN/],
    [{ pieces: [{ text: 'x', score: 0, type: 4 }] }, /type for piece \d+ but received user-defined/],
    [{ pieces: [{ text: 'x', score: 0, type: 9 }] }, /type for piece \d+ but received 9/],
  ])('%j', (fault, message) => {
    expect(() => parseTokenizerModel(littleSentencePiece(fault))).toThrow(message)
  })

  test('without a byte piece', () => {
    const broken = Buffer.from(file.toString('latin1').replace('<0x41>', '<0x4_>'), 'latin1')
    expect(() => parseTokenizerModel(broken)).toThrow('Expected a byte piece <0x41> in the vocabulary but found none')
  })

  test('cut short at any byte', () => {
    for (let length = 1; length < file.length; length += 7) {
      expect(() => parseTokenizerModel(file.subarray(0, length)), String(length)).toThrow(/^Expected /)
    }
  })

  test('a length past the end', () => {
    expect(() => parseTokenizerModel(Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]))).toThrow(
      'Expected a value of 4294967295 bytes at byte 6 but the protobuf message is cut short or malformed',
    )
    expect(() => parseTokenizerModel(Buffer.from([0x0a, ...Array(11).fill(0xff)]))).toThrow(
      /varint of at most 10 bytes/,
    )
    expect(() => parseTokenizerModel(Buffer.from([0x0a, 0x02, 0x0b, 0x00]))).toThrow(
      /wire type of 0, 1, 2 or 5 instead/,
    )
    expect(() => parseTokenizerModel(Buffer.from([0x0a, 0x02, 0x08, 0x00]))).toThrow(/bytes for the text of piece 0/)
    expect(() => parseTokenizerModel(Buffer.from([0x0a, 0x03, 0x0a, 0x01, 0xff]))).toThrow(
      /UTF-8 for the text of piece 0/,
    )
  })

  test('random bytes changed', () => {
    const change = fc.record({ at: fc.nat(file.length - 1), to: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), (changes) => {
        const broken = Buffer.from(file)
        for (const { at, to } of changes) broken[at] = to
        expectCleanly(() => parseTokenizerModel(broken).encode('the llama 🦙'))
      }),
      { numRuns: 300 },
    )
  })
})

describe('tiktoken ranks', () => {
  const file = littleTiktoken().toString()

  test('the file without faults is read', () => {
    const tokenizer = parseTokenizerModel(Buffer.from(file))
    expect([tokenizer.vocabSize, tokenizer.bosId]).toEqual([256 + 5 + 256, 256 + 5])
    expect([...tokenizer.encode('hello hello hell')]).toEqual([259, 260, 32, 258])
    expect([...parseTokenizerModel(Buffer.from(file.replaceAll('\n', '\r\n'))).encode('hello')]).toEqual([259])
  })

  test.each([
    ['a rank left out', file.replace(/\S+ 7\n/, ''), /Expected rank 7 in line 8 but received "\S+ 8"/],
    ['a rank that is no number', file.replace(' 9\n', ' nine\n'), /Expected rank 9 in line 10/],
    ['something after the rank', file.replace(' 9\n', ' 9 9\n'), /Expected rank 9 in line 10/],
    ['bad base64', file.replace(/\S+ 9\n/, 'C*k= 9\n'), /Expected base64 in line 10 but received "C\*k= 9"/],
    ['unpadded base64', file.replace(/\S+ 9\n/, 'CQ 9\n'), /Expected base64 in line 10/],
    ['an empty line', file.replace(' 9\n', ' 9\n\n'), /Expected base64 in line 11 but received ""/],
    ['a token twice', `${file}aGU= 261\n`, /Expected a token not listed before in line 262/],
    [
      'a token too long',
      `${file}${Buffer.alloc(1025).toString('base64')} 261\n`,
      /Expected at most 1024 bytes in line 262/,
    ],
    ['a byte missing', 'AA== 0\nAQ== 1\n', /Expected a token for each of the 256 bytes but received none for 2/],
  ])('%s', (_what, text, message) => {
    expect(() => parseTokenizerModel(Buffer.from(text))).toThrow(message)
  })
})

describe('tokenizer.json', () => {
  const little = littleTokenizerJson()
  const changed = (path: string, value: unknown) => {
    const root = structuredClone(little) as unknown as Record<string, unknown>
    const keys = path.split('.')
    let node = root
    for (const key of keys.slice(0, -1)) node = node[key] as Record<string, unknown>
    node[keys.at(-1)!] = value
    return JSON.stringify(root)
  }
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, use_regex: false }
  const split = { type: 'Split', pattern: { Regex: '\\w+' }, behavior: 'Isolated', invert: false }

  test.each([
    ['model.type', 'Unigram', /Expected "BPE" or null for model.type in tokenizer.json but received "Unigram"/],
    ['model.dropout', 0.1, /Expected null or 0 for model.dropout .* received 0.1/],
    ['model.byte_fallback', false, /Expected true for model.byte_fallback/],
    ['model.ignore_merges', true, /Expected false or null for model.ignore_merges/],
    ['model.continuing_subword_prefix', '##', /model.continuing_subword_prefix .* received "##"/],
    ['model.vocab', [], /Expected an object for model.vocab .* received \[\]/],
    ['model.vocab.the', -1, /Expected an integer from 0 to 1048575 for model.vocab.the .* received -1/],
    ['model.vocab.the', 2 ** 31, /for model.vocab.the .* received 2147483648/],
    ['model.vocab.the', '7', /for model.vocab.the .* received "7"/],
    ['model.vocab.the', 0, /Expected one token for id 0 but received <unk> and the/],
    ['model.vocab.the', 500, /Expected a token for id \d+ in tokenizer.json but found none/],
    ['model.merges', {}, /Expected an array for model.merges/],
    ['model.merges.2', 'the', /Expected two tokens that join to a third for model.merges\[2\] .* received "the"/],
    ['model.merges.2', 'a b c', /model.merges\[2\]/],
    ['model.merges.2', ['t', 'e'], /model.merges\[2\] .* received \["t","e"\]/],
    ['model.merges.2', 7, /model.merges\[2\] .* received 7/],
    ['normalizer', { type: 'NFKC' }, /"Prepend" or "Replace" for normalizer.type .* received "NFKC"/],
    ['normalizer.normalizers.0', { type: 'Lowercase' }, /normalizer.normalizers\[0\].type .* received "Lowercase"/],
    ['normalizer.normalizers.0.prepend', '_', /Expected "▁" for normalizer.normalizers\[0\].prepend/],
    ['normalizer', null, /Expected a normalizer that replaces spaces by ▁ for normalizer .* received null/],
    ['pre_tokenizer', { type: 'Whitespace' }, /Expected no normalizer beside byte-level BPE for normalizer/],
    ['pre_tokenizer', { type: 'Metaspace' }, /Expected no normalizer beside Metaspace for normalizer/],
    ['decoder', { type: 'WordPiece' }, /for decoder.type .* received "WordPiece"/],
    ['post_processor', { type: 'BertProcessing' }, /for post_processor.type .* received "BertProcessing"/],
    ['post_processor.single', [{ Sequence: {} }, { SpecialToken: {} }], /at most one special token, before the text/],
    ['post_processor.single.0.SpecialToken.id', '<b>', /special token <b> among tokenizer.json's added_tokens/],
    ['added_tokens.1.lstrip', true, /Expected false or null for added_tokens\[1\].lstrip .* received true/],
    ['added_tokens.1.id', 1.5, /Expected an integer from 0 to 1048575 for added_tokens\[1\].id .* received 1.5/],
    ['added_tokens.1.id', 2, /Expected one added token for id 2 but received two/],
    ['added_tokens.0.content', '</s>', /Expected one added token named <\/s> but received two/],
    ['added_tokens.0.content', '', /Expected a name for added token 0/],
    ['added_tokens', {}, /Expected an array for added_tokens/],
  ])('%s = %j', (path, value, message) => {
    expect(() => parseTokenizerJson(changed(path, value))).toThrow(message)
  })

  test('another kind of pre-tokenizer', () => {
    const of = (pre_tokenizer: object) => JSON.stringify({ ...little, normalizer: null, pre_tokenizer })
    expect(() => parseTokenizerJson(of({ type: 'Whitespace' }))).toThrow(
      'Expected Metaspace or Split and ByteLevel for pre_tokenizer in tokenizer.json but received {"type":"Whitespace"}',
    )
    expect(() => parseTokenizerJson(of({ type: 'Sequence', pretokenizers: [split, byteLevel] }))).toThrow(
      /for pre_tokenizer.pretokenizers\[0\].pattern.Regex in tokenizer.json but received "\\\\w\+"/,
    )
  })

  test('no JSON', () => {
    expect(() => parseTokenizerJson('{"model"')).toThrow(/^Expected JSON in tokenizer.json but /)
    expect(() => parseTokenizerJson('[]')).toThrow('Expected an object for the whole in tokenizer.json but received []')
    expect(() => parseTokenizerJson('null')).toThrow(/^Expected an object for the whole/)
  })

  test('any part replaced by something else', () => {
    const paths = [...pathsOf(little, 3)]
    fc.assert(
      fc.property(fc.constantFrom(...paths), fc.jsonValue(), (path, value) => {
        expectCleanly(() => parseTokenizerJson(changed(path, value)).encode('the llama 🦙'))
      }),
      { numRuns: 300 },
    )
  })

  test('without a beginning-of-text token, addBos is refused', () => {
    const tokenizer = parseTokenizerJson(JSON.stringify({ ...little, added_tokens: [], post_processor: null }))
    expect(tokenizer.bosId).toBeUndefined()
    expect(() => tokenizer.encode('the', { addBos: true })).toThrow('Expected a beginning-of-text token for addBos')
    expect(tokenizer.encode('the')).toHaveLength(1)
  })

  test('a token added beyond the vocabulary, and one that is not special', () => {
    const id = littlePieces.length
    const added_tokens = [...little.added_tokens, { id, content: '<tool>', special: false }]
    const tokenizer = parseTokenizerJson(JSON.stringify({ ...little, added_tokens }))
    expect(tokenizer.vocabSize).toBe(id + 1)
    expect([...tokenizer.encode('a<tool>')].at(-1)).toBe(id)
    expect(tokenizer.decode([id], { skipSpecial: true })).toBe('<tool>')
    const gap = [...little.added_tokens, { id: id + 1, content: '<tool>', special: false }]
    expect(() => parseTokenizerJson(JSON.stringify({ ...little, added_tokens: gap }))).toThrow(
      /Expected a token for id/,
    )
  })
})

function* pathsOf(node: unknown, depth: number, prefix = ''): Generator<string> {
  if (depth === 0 || typeof node !== 'object' || node === null) return
  for (const [key, value] of Object.entries(node)) {
    if (key.includes('.')) continue
    yield prefix + key
    yield* pathsOf(value, depth - 1, `${prefix}${key}.`)
  }
}

describe('a directory', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'fireq-tokenizer-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  test('without a tokenizer', async () => {
    await expect(loadTokenizer(folder)).rejects.toThrow(
      `Expected tokenizer.json or tokenizer.model in ${folder} but found neither`,
    )
  })

  test('with a tokenizer.model of either kind, or of none', async () => {
    await writeFile(join(folder, 'tokenizer.model'), littleSentencePiece())
    expect((await loadTokenizer(folder)).vocabSize).toBe(littlePieces.length)
    await writeFile(join(folder, 'tokenizer.model'), littleTiktoken())
    expect((await loadTokenizer(folder)).vocabSize).toBe(517)
    for (const content of ['', 'version https://git-lfs.github.com/spec/v1\n']) {
      await writeFile(join(folder, 'tokenizer.model'), content)
      await expect(loadTokenizer(folder)).rejects.toThrow(
        `${join(folder, 'tokenizer.model')}: Expected a SentencePiece model or lines of "base64 rank"`,
      )
    }
  })

  test('with a tokenizer.json, which comes first, and a tokenizer_config.json', async () => {
    const little = littleTokenizerJson()
    await writeFile(join(folder, 'tokenizer.json'), JSON.stringify({ ...little, post_processor: null }))
    expect((await loadTokenizer(folder)).bosId).toBe(1)
    const config = { bos_token: { content: '</s>' }, eos_token: '<unk>' }
    await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify(config))
    const tokenizer = await loadTokenizer(folder)
    expect([tokenizer.bosId, tokenizer.eosIds]).toEqual([2, [0, 2]])
    await writeFile(join(folder, 'tokenizer_config.json'), '{"eos_token": 7}')
    await expect(loadTokenizer(folder)).rejects.toThrow(/Expected a string for eos_token in .*tokenizer_config.json/)
    await writeFile(join(folder, 'tokenizer.json'), '{}')
    await writeFile(join(folder, 'tokenizer_config.json'), '{}')
    await expect(loadTokenizer(folder)).rejects.toThrow(`${folder}: Expected an object for model in tokenizer.json`)
  })
})
