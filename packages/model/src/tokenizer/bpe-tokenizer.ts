import { IdBuffer } from './id-buffer.js'
import { Utf8IncrementalDecoder } from './incremental-decoder.js'
import type { AddedToken, DecodeOptions, EncodeOptions, IncrementalDecoder, SubwordModel, Tokenizer } from './types.js'

/** What a tokenizer file says. */
interface TokenizerParts {
  model: SubwordModel
  /** Tokens matched before the model; their ids may be the model's or follow them. */
  addedTokens: readonly AddedToken[]
  bosId: number | undefined
  eosIds: readonly number[]
  /** The model encodes every text with a space before it, so decoding drops one. */
  dropsLeadingSpace: boolean
}

/** A subword model with the tokens added around it. */
export class BpeTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly bosId: number | undefined
  readonly eosIds: readonly number[]
  readonly specialTokens: ReadonlyMap<string, number>

  #model: SubwordModel
  #dropsLeadingSpace: boolean
  #addedById: Map<number, AddedToken>
  #addedIds: Map<string, number>
  #plainPattern: RegExp | undefined
  #fullPattern: RegExp | undefined
  #bytes: (Uint8Array | undefined)[] = []
  #ids: Map<string, number> | undefined

  /** @throws if two added tokens share a name or an id, or ids are missing between the model's and the added ones */
  constructor(parts: TokenizerParts) {
    const { model, addedTokens } = parts
    this.#model = model
    this.#dropsLeadingSpace = parts.dropsLeadingSpace
    this.#addedById = new Map(addedTokens.map((token) => [token.id, token]))
    this.#addedIds = new Map(addedTokens.map((token) => [token.content, token.id]))
    checkAddedTokens(addedTokens, model.size)
    const special = addedTokens.filter((token) => token.special)
    this.specialTokens = new Map(special.map((token) => [token.content, token.id]))
    this.#plainPattern = matchAny(addedTokens.filter((token) => !token.special))
    this.#fullPattern = matchAny(addedTokens)
    this.vocabSize = addedTokens.reduce((size, token) => Math.max(size, token.id + 1), model.size)
    this.bosId = parts.bosId
    this.eosIds = parts.eosIds
  }

  encode(text: string, options: EncodeOptions = {}): Int32Array {
    const ids = new IdBuffer()
    if (options.addBos) {
      if (this.bosId === undefined) throw new Error('Expected a beginning-of-text token for addBos but there is none')
      ids.push(this.bosId)
    }
    const whole = wellFormed(text)
    const pattern = options.parseSpecial ? this.#fullPattern : this.#plainPattern
    let start = 0
    for (const match of pattern ? whole.matchAll(pattern) : []) {
      if (match.index > start) this.#model.encode(whole.slice(start, match.index), start === 0, ids)
      ids.push(this.#addedIds.get(match[0])!)
      start = match.index + match[0].length
    }
    if (start < whole.length) this.#model.encode(whole.slice(start), start === 0, ids)
    return ids.toArray()
  }

  decode(ids: ArrayLike<number>, options: DecodeOptions = {}): string {
    const parts: Uint8Array[] = []
    for (let at = 0; at < ids.length; at++) {
      if (!options.skipSpecial || !this.isSpecial(ids[at])) parts.push(this.#bytesOf(ids[at]))
    }
    const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(parts))
    return this.#dropsLeadingSpace && !options.continuation && text[0] === ' ' ? text.slice(1) : text
  }

  stream(options: DecodeOptions = {}): IncrementalDecoder {
    const bytesOf = (id: number) => (options.skipSpecial && this.isSpecial(id) ? undefined : this.#bytesOf(id))
    return new Utf8IncrementalDecoder(bytesOf, this.#dropsLeadingSpace && !options.continuation)
  }

  idToToken(id: number): string {
    this.#check(id)
    return this.#addedById.get(id)?.content ?? this.#model.token(id)
  }

  tokenToId(token: string): number | undefined {
    this.#ids ??= new Map(Array.from({ length: this.vocabSize }, (_, id) => [this.idToToken(id), id]))
    return this.#ids.get(token)
  }

  idToBytes(id: number): Uint8Array {
    return Uint8Array.from(this.#bytesOf(id))
  }

  isSpecial(id: number): boolean {
    this.#check(id)
    return this.#addedById.get(id)?.special ?? false
  }

  #bytesOf(id: number): Uint8Array {
    const known = this.#bytes[id]
    if (known) return known
    this.#check(id)
    const added = this.#addedById.get(id)
    const bytes = added ? Buffer.from(added.content, 'utf8') : this.#model.bytes(id)
    this.#bytes[id] = bytes
    return bytes
  }

  #check(id: number): void {
    if (Number.isInteger(id) && id >= 0 && id < this.vocabSize) return
    throw new RangeError(`Expected a token id from 0 to ${this.vocabSize - 1} but received ${id}`)
  }
}

function checkAddedTokens(tokens: readonly AddedToken[], modelSize: number): void {
  const ids = new Set<number>()
  const names = new Set<string>()
  for (const { id, content } of tokens) {
    if (content === '') throw new Error(`Expected a name for added token ${id} but received an empty one`)
    if (ids.has(id)) throw new Error(`Expected one added token for id ${id} but received two`)
    if (names.has(content)) throw new Error(`Expected one added token named ${content} but received two`)
    ids.add(id)
    names.add(content)
  }
  const beyond = [...ids].filter((id) => id >= modelSize).sort((a, b) => a - b)
  const hole = beyond.findIndex((id, at) => id !== modelSize + at)
  if (hole >= 0)
    throw new Error(`Expected a token for id ${modelSize + hole} but found none, while ${beyond[hole]} has`)
}

/** Matches the leftmost token, the longest of those that begin there. */
function matchAny(tokens: readonly AddedToken[]): RegExp | undefined {
  if (tokens.length === 0) return undefined
  const names = tokens.map((token) => token.content).sort((a, b) => b.length - a.length)
  return new RegExp(names.map((name) => name.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')).join('|'), 'gu')
}

/** Lone surrogates as U+FFFD, as UTF-8 encoders write them. */
function wellFormed(text: string): string {
  return text.replace(/\p{Surrogate}/gu, '\uFFFD')
}
