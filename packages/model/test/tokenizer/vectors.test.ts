import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/index.js'
import { repositoryFile, testData } from '../data.js'
import { ABSENT, llama2Folder, llama3Folder, readVectors, standinFolder } from './support.js'

type Encoded = { text: string; ids: number[]; bos?: boolean; eos?: boolean; roundtrip?: boolean }
type Decoded = { ids: number[]; text: string; add_bos_token?: boolean; add_preceding_space?: boolean }
type Message = { role: string; content: string }

/** llama.cpp's texts and their ids. */
function ggmlVectors(name: string): Encoded[] {
  const read = (suffix: string) =>
    readFileSync(testData('tokenizer-vectors', `ggml-vocab-${name}.gguf.${suffix}`)!, 'utf8')
  const lines = read('out').split('\n')
  const texts = read('inp').split('\n__ggml_vocab_test__\n').slice(0, -1)
  return texts.map((text, at) => ({ text, ids: lines[at].trim().split(/\s+/).filter(Boolean).map(Number) }))
}

const vectorsHere = testData('tokenizer-vectors') !== undefined

describe.skipIf(!llama2Folder || !vectorsHere)(`Llama 2 (skipped where ${ABSENT})`, () => {
  let tokenizer: Tokenizer
  beforeAll(async () => {
    tokenizer = await loadTokenizer(llama2Folder!)
  })

  test('has 32000 pieces, <s> and </s>', () => {
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosIds]).toEqual([32000, 1, [2]])
    expect([...tokenizer.specialTokens]).toEqual([
      ['<unk>', 0],
      ['<s>', 1],
      ['</s>', 2],
    ])
  })

  test("llama.cpp's vectors", () => {
    const vectors = ggmlVectors('llama-spm')
    expect(vectors).toHaveLength(46)
    for (const { text, ids } of vectors) {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(ids)
      expect(tokenizer.decode(ids)).toBe(text)
    }
  })

  test.each(['llama2-belladoreai.json', 'llama2-karpathy.json'])('%s, encode', (name) => {
    for (const { text, ids } of readVectors<{ encode: Encoded[] }>(name).encode) {
      expect([...tokenizer.encode(text, { addBos: true })]).toEqual(ids)
      expect(tokenizer.decode(ids, { skipSpecial: true })).toBe(text)
    }
  })

  test('llama2-belladoreai.json, decode', () => {
    const { decode } = readVectors<{ decode: Decoded[] }>('llama2-belladoreai.json')
    expect(decode).toHaveLength(8)
    for (const { ids, text, add_bos_token, add_preceding_space } of decode) {
      const options = { skipSpecial: add_bos_token, continuation: !add_preceding_space }
      expect(tokenizer.decode(ids, options)).toBe(text)
    }
  })
})

describe.skipIf(!llama3Folder || !vectorsHere)(`Llama 3 (skipped where ${ABSENT})`, () => {
  let tokenizer: Tokenizer
  beforeAll(async () => {
    tokenizer = await loadTokenizer(llama3Folder!)
  })

  test('has 128256 tokens, and three that end a text or a turn', () => {
    expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosIds]).toEqual([128256, 128000, [128001, 128008, 128009]])
    expect(tokenizer.specialTokens.size).toBe(256)
  })

  test("llama.cpp's vectors", () => {
    const vectors = ggmlVectors('llama-bpe')
    expect(vectors).toHaveLength(46)
    for (const { text, ids } of vectors) {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(ids)
      expect(tokenizer.decode(ids)).toBe(text)
    }
  })

  test.each(['llama3-belladoreai.json', 'llama3-meta-chat.json'])('%s, encode and decode', (name) => {
    const vectors = readVectors<{ encode: Encoded[]; decode: Decoded[] }>(name)
    for (const { text, ids, bos, eos, roundtrip } of vectors.encode) {
      const encoded = [...tokenizer.encode(text, { addBos: bos, parseSpecial: true })]
      expect(eos ? [...encoded, tokenizer.eosIds[0]] : encoded).toEqual(ids)
      if (roundtrip) expect(tokenizer.decode(ids)).toBe(text)
    }
    for (const { ids, text } of vectors.decode) expect(tokenizer.decode(ids)).toBe(text)
  })

  test("Meta's chat prompts", () => {
    const { chat } = readVectors<{ chat: { messages: Message[]; ids: number[] }[] }>('llama3-meta-chat.json')
    const turn = ({ role, content }: Message) => `<|start_header_id|>${role}<|end_header_id|>\n\n${content}<|eot_id|>`
    const [message, dialog] = chat
    expect([...tokenizer.encode(turn(message.messages[0]), { parseSpecial: true })]).toEqual(message.ids)
    const prompt = `${dialog.messages.map(turn).join('')}<|start_header_id|>assistant<|end_header_id|>\n\n`
    expect([...tokenizer.encode(prompt, { parseSpecial: true, addBos: true })]).toEqual(dialog.ids)
  })
})

describe('what the reference tokenizers gave (fixtures/references.json)', () => {
  type Reference = {
    text: string
    llama2: number[]
    llama2Text?: string
    llama3: number[]
    llama3Special: number[]
    standin: number[]
  }
  const file = join(import.meta.dirname, 'fixtures/references.json')
  const { texts } = JSON.parse(readFileSync(file, 'utf8')) as { texts: Reference[] }

  test.skipIf(!llama2Folder)(`sentencepiece with Llama 2's file (skipped where ${ABSENT})`, async () => {
    const tokenizer = await loadTokenizer(llama2Folder!)
    for (const { text, llama2, llama2Text } of texts) {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(llama2)
      expect(tokenizer.decode(llama2)).toBe(llama2Text ?? text)
    }
  })

  test.skipIf(!llama3Folder)(`tiktoken with Llama 3's file (skipped where ${ABSENT})`, async () => {
    const tokenizer = await loadTokenizer(llama3Folder!)
    for (const { text, llama3, llama3Special } of texts) {
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(llama3)
      expect([...tokenizer.encode(text, { parseSpecial: true })], JSON.stringify(text)).toEqual(llama3Special)
      expect(tokenizer.decode(llama3)).toBe(text)
    }
  })

  test("tokenizers with the stand-in's file", async () => {
    const tokenizer = await loadTokenizer(standinFolder)
    for (const { text, standin } of texts) {
      expect([...tokenizer.encode(text, { addBos: true, parseSpecial: true })], JSON.stringify(text)).toEqual(standin)
    }
  })
})

test("the stand-in's golden prompts", async () => {
  type Prompt = { text: string; ids: number[]; greedy_ids: number[]; greedy_text: string }
  const golden = JSON.parse(readFileSync(repositoryFile('models/standin/golden.json'), 'utf8')) as { prompts: Prompt[] }
  const tokenizer = await loadTokenizer(standinFolder)
  expect([tokenizer.vocabSize, tokenizer.bosId, tokenizer.eosIds]).toEqual([4096, 0, [1]])
  expect(golden.prompts.length).toBeGreaterThan(0)
  for (const { text, ids, greedy_ids, greedy_text } of golden.prompts) {
    expect([...tokenizer.encode(text, { addBos: true })]).toEqual(ids)
    expect(tokenizer.decode(greedy_ids, { skipSpecial: true })).toBe(greedy_text)
  }
})
