import type { IdBuffer } from './id-buffer.js'
import { Merger } from './merger.js'
import type { PairTable } from './pair-table.js'
import type { SubwordModel } from './types.js'

/** What SentencePiece writes for a space. */
export const SPACE_MARK = '▁'

/** Where a space mark is put before the text. */
export interface DummyPrefix {
  /** Before every segment between added tokens, only before one that begins the text, or nowhere. */
  where: 'every' | 'first' | 'never'
  /** Not before a segment that begins with a space already. */
  unlessSpaced: boolean
}

interface SentencePieceOptions {
  /** Each id's piece, spaces as marks. */
  pieces: readonly string[]
  pairs: PairTable
  /** Code point → symbol of the characters that merge. A symbol that is no id of `pieces` is only part of others. */
  symbols: ReadonlyMap<number, number>
  /** The ids of the 256 byte pieces, for characters that are no piece. */
  byteIds: readonly number[]
  prefix: DummyPrefix
  /** Cut the text before every space mark, whatever could merge across. */
  splitAtSpaces: boolean
}

/** Llama 2's model: the characters of the text, spaces marked, merged by score; unknown ones as bytes. */
export class SentencePieceBpe implements SubwordModel {
  #options: SentencePieceOptions
  #merger: Merger
  #byteOfId: Map<number, number>
  #partOnly: Map<number, number>
  #wordsAreApart: boolean
  #buffer: Int32Array = new Int32Array(1024)

  constructor(options: SentencePieceOptions) {
    const { pieces, pairs, symbols, byteIds } = options
    this.#options = options
    this.#merger = new Merger(pairs)
    this.#byteOfId = new Map(byteIds.map((id, byte) => [id, byte]))
    this.#partOnly = new Map([...symbols].filter(([, id]) => id >= pieces.length).map(([point, id]) => [id, point]))
    // Where no piece holds a space mark after another character, no merge crosses from a word to the next space: then
    // words can be merged one by one, with the same result and far less work than the whole text at once.
    this.#wordsAreApart = !pieces.some((piece) => /[^▁]▁/u.test(piece))
  }

  get size(): number {
    return this.#options.pieces.length
  }

  encode(text: string, atStart: boolean, out: IdBuffer): void {
    const marked = this.#withPrefix(text.replaceAll(' ', SPACE_MARK), atStart)
    for (let start = 0; start < marked.length; ) {
      const end = this.#chunkEnd(marked, start)
      this.#encodeChunk(marked.slice(start, end), out)
      start = end
    }
  }

  token(id: number): string {
    return this.#options.pieces[id]
  }

  bytes(id: number): Uint8Array {
    const byte = this.#byteOfId.get(id)
    if (byte !== undefined) return Uint8Array.of(byte)
    return Buffer.from(this.#options.pieces[id].replaceAll(SPACE_MARK, ' '), 'utf8')
  }

  #withPrefix(marked: string, atStart: boolean): string {
    const { where, unlessSpaced } = this.#options.prefix
    if (where === 'never' || (where === 'first' && !atStart)) return marked
    if (unlessSpaced && marked.startsWith(SPACE_MARK)) return marked
    return SPACE_MARK + marked
  }

  #chunkEnd(marked: string, start: number): number {
    const { splitAtSpaces } = this.#options
    if (!splitAtSpaces && !this.#wordsAreApart) return marked.length
    let end = start + 1
    if (!splitAtSpaces) while (marked[end] === SPACE_MARK) end++
    end = marked.indexOf(SPACE_MARK, end)
    return end < 0 ? marked.length : end
  }

  #encodeChunk(chunk: string, out: IdBuffer): void {
    const symbols = chunk.length <= this.#buffer.length ? this.#buffer : new Int32Array(chunk.length)
    let count = 0
    for (const char of chunk) {
      const codePoint = char.codePointAt(0)!
      symbols[count++] = this.#options.symbols.get(codePoint) ?? -codePoint - 1
    }
    count = this.#merger.merge(symbols, count)
    for (let at = 0; at < count; at++) {
      const id = symbols[at]
      if (id >= 0 && id < this.size) out.push(id)
      else this.#pushBytes(id < 0 ? -id - 1 : this.#partOnly.get(id)!, out)
    }
  }

  #pushBytes(codePoint: number, out: IdBuffer): void {
    for (const byte of Buffer.from(String.fromCodePoint(codePoint), 'utf8')) out.push(this.#options.byteIds[byte])
  }
}

/** The ids of `<0x00>` … `<0xFF>`; throws naming the first that isn't there. */
export function bytePieceIds(idOf: (piece: string) => number | undefined): number[] {
  return Array.from({ length: 256 }, (_, byte) => {
    const piece = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
    const id = idOf(piece)
    if (id === undefined) throw new Error(`Expected a byte piece ${piece} in the vocabulary but found none`)
    return id
  })
}
