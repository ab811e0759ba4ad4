import { BpeTokenizer } from './bpe-tokenizer.js'
import { PairTable } from './pair-table.js'
import { bytePieceIds, SentencePieceBpe } from './sentencepiece-bpe.js'
import { readSentencePieceModel, type SentencePiece } from './sentencepiece-model.js'
import type { Tokenizer } from './types.js'

/**
 * Llama 2's tokenizer from the bytes of its `tokenizer.model` (SentencePiece BPE).
 * @throws Error if the file is malformed or not such a model
 */
export function parseSentencePiece(file: Uint8Array): Tokenizer {
  const { pieces, bosId, eosId, addDummyPrefix } = readSentencePieceModel(file)
  const ids = new Map<string, number>()
  for (const [id, { text }] of pieces.entries()) {
    if (ids.has(text))
      throw new Error(`Expected distinct pieces but pieces ${ids.get(text)} and ${id} are both ${text}`)
    ids.set(text, id)
  }
  const isByte = (id: number | undefined) => id !== undefined && pieces[id].type === 'byte'
  const { pairs, symbols } = mergesByScore(pieces)
  const model = new SentencePieceBpe({
    pieces: pieces.map(({ text }) => text),
    pairs,
    symbols,
    byteIds: bytePieceIds((piece) => (isByte(ids.get(piece)) ? ids.get(piece) : undefined)),
    prefix: { where: addDummyPrefix ? 'every' : 'never', unlessSpaced: false },
    splitAtSpaces: false,
  })
  const addedTokens = pieces.flatMap(({ text, type }, id) =>
    type === 'control' || type === 'unknown' ? [{ id, content: text, special: true }] : [],
  )
  return new BpeTokenizer({ model, addedTokens, bosId, eosIds: [eosId], dropsLeadingSpace: addDummyPrefix })
}

/**
 * SentencePiece joins any two neighbours whose text together is a piece, the highest score first. So every way to cut a
 * piece in two that are pieces, or single characters, is a merge. Equal scores get equal ranks.
 */
function mergesByScore(pieces: readonly SentencePiece[]): { pairs: PairTable; symbols: Map<number, number> } {
  const ids = new Map<string, number>()
  for (const [id, { text, type }] of pieces.entries()) if (type === 'normal') ids.set(text, id)

  const symbols = new Map<number, number>()
  let nextSymbol = pieces.length
  for (const text of ids.keys()) {
    for (const char of text) {
      if (!ids.has(char)) ids.set(char, nextSymbol++) // a character that is no piece but part of one
      symbols.set(char.codePointAt(0)!, ids.get(char)!)
    }
  }

  const scores = [...new Set(pieces.map(({ score }) => score))].sort((a, b) => b - a)
  const rankOf = new Map(scores.map((score, rank) => [score, rank]))
  const pairs = new PairTable(4 * pieces.length)
  for (const [id, { text, score, type }] of pieces.entries()) {
    if (type !== 'normal') continue
    for (let cut = 1; cut < text.length; cut++) {
      const left = ids.get(text.slice(0, cut))
      const right = left === undefined ? undefined : ids.get(text.slice(cut))
      if (left !== undefined && right !== undefined) pairs.set(left, right, rankOf.get(score)!, id)
    }
  }
  return { pairs, symbols }
}
