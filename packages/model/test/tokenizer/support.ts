import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, test } from 'vitest'
import { loadTokenizer, type Tokenizer } from '../../src/tokenizer/index.js'
import { repositoryFile, testData } from '../data.js'

export const standinFolder: string = repositoryFile('models/standin')
export const llama2Folder: string | undefined = testData('llama2-tokenizer')
export const llama3Folder: string | undefined = testData('llama3-tokenizer')
export const ABSENT = 'the Llama vocabularies are not here (FIREQ_TEST_DATA, or shared/data beside the repository)'

/** The same tests for each tokenizer, skipped for one that is not here. */
export async function describeEachTokenizer(what: string, tests: (tokenizer: Tokenizer) => void): Promise<void> {
  const folders = { 'the stand-in': standinFolder, 'Llama 2': llama2Folder, 'Llama 3': llama3Folder }
  for (const [name, folder] of Object.entries(folders)) {
    if (folder === undefined) test.skip(`${name}, ${what}: ${ABSENT}`)
    else {
      const tokenizer = await loadTokenizer(folder)
      describe(`${name}, ${what}`, () => tests(tokenizer))
    }
  }
}

/** Pieces of text that tokenizers stumble over. */
const ATOMS = [
  ...[' ', '  ', '\n', '\r\n', '\t', '\u00a0', '\u3000', '\u2028', '▁', '▁▁', '\0', '\u200b', '\ufffd'],
  ...['a', 'the', ' and', "'s", "'LL", "'Ve", 'é', 'e\u0301', 'ß', '_', '-', '!', '...', '(', '0', '12345', '½', '٣'],
  ...['镇', '한국어', 'नमस्ते', 'العربية', '🦙', '👨\u200d👩\u200d👧', '🇩🇪', '𝒜', '\u{e0001}', 'Ġ', 'Ċ'],
  ...['<s>', '</s>', '<unk>', '<0x41>', '<|eot_id|>', '<|begin_of_text|>', '<|end_of_text|>', '<|'],
]

/** Well-formed texts, random and nasty. */
export const anyText: fc.Arbitrary<string> = fc.oneof(
  fc.array(fc.constantFrom(...ATOMS), { maxLength: 16 }).map((atoms) => atoms.join('')),
  fc.string({ unit: 'binary', maxLength: 24 }),
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.tuple(fc.constantFrom(...ATOMS), fc.integer({ min: 1, max: 80 })).map(([atom, times]) => atom.repeat(times)),
)

/** A vector of ids and texts from the test data. */
export function readVectors<T>(name: string): T {
  return JSON.parse(readFileSync(join(testData('tokenizer-vectors')!, name), 'utf8')) as T
}

const BYTE_PIECES = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`)
const MERGES = ['▁ ▁', '▁▁ ▁▁', 't h', 'th e', '▁ the', '▁ a', 'a n', 'an d', '▁a n', '▁an d', 'é é', 'l l', 'll a']
const LETTERS = ['▁', 't', 'h', 'e', 'a', 'n', 'd', 'é', 'l', '0', '1', '🦙']

/** A little vocabulary of Llama 2's kind; the merges' order is their rank. */
export const littlePieces: string[] = [
  ...['<unk>', '<s>', '</s>'],
  ...BYTE_PIECES,
  ...new Set([...LETTERS, ...MERGES.map((merge) => merge.replace(' ', ''))]),
]

/** The parts of a `tokenizer.json` that tests change. */
export interface TokenizerJson {
  added_tokens: { id: number; content: string; special: boolean }[]
  normalizer: object | null
  pre_tokenizer: object | null
  post_processor: object | null
  decoder: object
  model: { vocab: Record<string, number>; merges: (string | string[])[]; [setting: string]: unknown }
}

/** It as the value of a `tokenizer.json`; spread and change it. */
export function littleTokenizerJson(): TokenizerJson {
  return {
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(littlePieces.map((piece, id) => [piece, id])),
      merges: MERGES,
    },
  }
}

const NORMAL = 1
const UNKNOWN = 2
const CONTROL = 3
const BYTE = 6

/** Settings of the little SentencePiece model, and pieces to add to it, for files with a fault. */
interface SentencePieceFault {
  modelType?: number
  byteFallback?: number
  bosId?: number
  removeExtraSpaces?: number
  charsmap?: string
  pieces?: { text: string; score: number; type: number }[]
}

/** The little vocabulary as a SentencePiece `tokenizer.model`. */
export function littleSentencePiece(fault: SentencePieceFault = {}): Buffer {
  const typeOf = (id: number) => (id === 0 ? UNKNOWN : id < 3 ? CONTROL : id < 259 ? BYTE : NORMAL)
  const pieces = littlePieces.map((text, id) => {
    const rank = MERGES.findIndex((merge) => merge.replace(' ', '') === text)
    return { text, score: rank < 0 ? -1000 : -rank, type: typeOf(id) }
  })
  const trainer = [
    varintField(3, fault.modelType ?? 2),
    varintField(35, fault.byteFallback ?? 1),
    varintField(41, fault.bosId ?? 1),
    varintField(42, 2),
  ]
  const normalizer = [
    bytesField(1, Buffer.from('identity')),
    bytesField(2, Buffer.from(fault.charsmap ?? '')),
    varintField(3, 1),
    varintField(4, fault.removeExtraSpaces ?? 0),
    varintField(5, 1),
  ]
  return Buffer.concat([
    ...[...pieces, ...(fault.pieces ?? [])].map(({ text, score, type }) =>
      bytesField(1, Buffer.concat([bytesField(1, Buffer.from(text)), floatField(2, score), varintField(3, type)])),
    ),
    bytesField(2, Buffer.concat(trainer)),
    bytesField(3, Buffer.concat(normalizer)),
  ])
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest])
    bytes.push((rest % 128) + 128)
  }
}

function varintField(number: number, value: number): Buffer {
  return Buffer.concat([varint(number * 8), varint(value)])
}

function bytesField(number: number, bytes: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes])
}

function floatField(number: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([varint(number * 8 + 5), bytes])
}

/** A byte-level vocabulary as a tiktoken `tokenizer.model`: the bytes, then those tokens. */
export function littleTiktoken(tokens: string[] = ['he', 'll', 'hell', 'hello', ' hello']): Buffer {
  const all = [
    ...Array.from({ length: 256 }, (_, byte) => Buffer.of(byte)),
    ...tokens.map((token) => Buffer.from(token)),
  ]
  return Buffer.from(all.map((bytes, rank) => `${bytes.toString('base64')} ${rank}\n`).join(''))
}
