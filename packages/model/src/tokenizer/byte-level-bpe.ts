import { toPrintable } from './byte-alphabet.js'
import type { IdBuffer } from './id-buffer.js'
import { Merger } from './merger.js'
import type { PairTable } from './pair-table.js'
import { splitWords } from './split-pattern.js'
import type { SubwordModel } from './types.js'

/** Llama 3's model: text cut into words, the bytes of each word merged by rank. */
export class ByteLevelBpe implements SubwordModel {
  #byteStrings: readonly string[]
  #byteIds: Int32Array
  #merger: Merger
  #words: Map<string, number> | undefined
  #symbols: Int32Array = new Int32Array(1024)

  /**
   * @param byteStrings each id's bytes, one character a byte
   * @param wholeWords take a word that is itself a token whole, even where no merges lead to it
   * @throws if one of the 256 bytes is no token
   */
  constructor(byteStrings: readonly string[], pairs: PairTable, wholeWords: boolean) {
    this.#byteStrings = byteStrings
    this.#merger = new Merger(pairs)
    this.#byteIds = new Int32Array(256).fill(-1)
    for (let id = 0; id < byteStrings.length; id++) {
      if (byteStrings[id].length === 1) this.#byteIds[byteStrings[id].charCodeAt(0)] = id
    }
    const missing = this.#byteIds.indexOf(-1)
    if (missing >= 0) throw new Error(`Expected a token for each of the 256 bytes but received none for ${missing}`)
    if (wholeWords) this.#words = wordIds(byteStrings)
  }

  get size(): number {
    return this.#byteStrings.length
  }

  encode(text: string, _atStart: boolean, out: IdBuffer): void {
    for (const word of splitWords(text)) {
      const whole = this.#words?.get(word)
      if (whole !== undefined) out.push(whole)
      else this.#encodeWord(word, out)
    }
  }

  token(id: number): string {
    return toPrintable(this.#byteStrings[id])
  }

  bytes(id: number): Uint8Array {
    return Buffer.from(this.#byteStrings[id], 'latin1')
  }

  #encodeWord(word: string, out: IdBuffer): void {
    const bytes = Buffer.from(word, 'utf8')
    const symbols = bytes.length <= this.#symbols.length ? this.#symbols : new Int32Array(bytes.length)
    for (let at = 0; at < bytes.length; at++) symbols[at] = this.#byteIds[bytes[at]]
    const count = this.#merger.merge(symbols, bytes.length)
    for (let at = 0; at < count; at++) out.push(symbols[at])
  }
}

/** Text → id for the tokens that are valid UTF-8: well-formed text can match no other. */
function wordIds(byteStrings: readonly string[]): Map<string, number> {
  const ids = new Map<string, number>()
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
  for (let id = 0; id < byteStrings.length; id++) {
    const bytes = byteStrings[id]
    if (isAscii(bytes)) ids.set(bytes, id)
    else {
      try {
        ids.set(utf8.decode(Buffer.from(bytes, 'latin1')), id)
      } catch {
        // Part of a character: no word is that.
      }
    }
  }
  return ids
}

function isAscii(byteString: string): boolean {
  for (let at = 0; at < byteString.length; at++) if (byteString.charCodeAt(at) > 0x7f) return false
  return true
}
