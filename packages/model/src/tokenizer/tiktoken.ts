import { BpeTokenizer } from './bpe-tokenizer.js'
import { ByteLevelBpe } from './byte-level-bpe.js'
import { PairTable } from './pair-table.js'
import { MAX_TOKEN_LENGTH, MAX_VOCABULARY, type Tokenizer } from './types.js'

/**
 * Llama 3's tokenizer from the bytes of its `tokenizer.model`: a line "base64 rank" for each token, and after those
 * ranks the 256 special tokens of Llama 3.1, which the file doesn't list.
 * @throws Error naming the line, if the file is malformed
 */
export function parseTiktoken(file: Uint8Array): Tokenizer {
  const byteStrings = readRanks(Buffer.from(file.buffer, file.byteOffset, file.byteLength).toString('latin1'))
  const model = new ByteLevelBpe(byteStrings, mergesByRank(byteStrings), true)
  const addedTokens = llama3SpecialTokens().map((content, at) => ({ id: model.size + at, content, special: true }))
  const idOf = (name: string) => addedTokens.find(({ content }) => content === name)!.id
  return new BpeTokenizer({
    model,
    addedTokens,
    bosId: idOf('<|begin_of_text|>'),
    eosIds: [idOf('<|end_of_text|>'), idOf('<|eom_id|>'), idOf('<|eot_id|>')],
    dropsLeadingSpace: false,
  })
}

/** The names of ids 128000 to 128255, from Llama 3.1 on. */
function llama3SpecialTokens(): string[] {
  const named = new Map([
    [0, 'begin_of_text'],
    [1, 'end_of_text'],
    [4, 'finetune_right_pad_id'],
    [6, 'start_header_id'],
    [7, 'end_header_id'],
    [8, 'eom_id'],
    [9, 'eot_id'],
    [10, 'python_tag'],
  ])
  let reserved = 0
  return Array.from({ length: 256 }, (_, at) => `<|${named.get(at) ?? `reserved_special_token_${reserved++}`}|>`)
}

/** Each rank's bytes, one character a byte. */
function readRanks(text: string): string[] {
  const byteStrings: string[] = []
  const seen = new Set<string>()
  for (const [at, line] of text
    .replace(/\r?\n$/, '')
    .split(/\r?\n/)
    .entries()) {
    const [base64, rank, ...rest] = line.split(' ')
    const bytes = Buffer.from(base64, 'base64')
    const fail = (expected: string) => new Error(`Expected ${expected} in line ${at + 1} but received ${quote(line)}`)
    if (bytes.length === 0 || bytes.toString('base64') !== base64) throw fail('base64')
    if (rest.length > 0 || rank !== String(at)) throw fail(`rank ${at}`)
    if (bytes.length > MAX_TOKEN_LENGTH) throw fail(`at most ${MAX_TOKEN_LENGTH} bytes`)
    if (at >= MAX_VOCABULARY) throw fail(`at most ${MAX_VOCABULARY} ranks`)
    const byteString = bytes.toString('latin1')
    if (seen.has(byteString)) throw fail('a token not listed before')
    seen.add(byteString)
    byteStrings.push(byteString)
  }
  return byteStrings
}

/** Any two neighbours whose bytes together are a token merge, the lowest rank first: every cut of every token. */
function mergesByRank(byteStrings: readonly string[]): PairTable {
  const ids = new Map(byteStrings.map((bytes, id) => [bytes, id]))
  const pairs = new PairTable(6 * byteStrings.length)
  for (const [id, bytes] of byteStrings.entries()) {
    for (let cut = 1; cut < bytes.length; cut++) {
      const left = ids.get(bytes.slice(0, cut))
      const right = left === undefined ? undefined : ids.get(bytes.slice(cut))
      if (left !== undefined && right !== undefined) pairs.set(left, right, id, id)
    }
  }
  return pairs
}

function quote(line: string): string {
  return JSON.stringify(line.length > 60 ? `${line.slice(0, 60)}…` : line)
}
