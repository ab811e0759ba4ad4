import { TextDecoder } from 'node:util'
import type { IncrementalDecoder } from './types.js'

/** Joins the bytes of tokens to text; see {@link IncrementalDecoder}. */
export class Utf8IncrementalDecoder implements IncrementalDecoder {
  #bytesOf: (id: number) => Uint8Array | undefined
  #dropsLeadingSpace: boolean
  #utf8: TextDecoder = new TextDecoder('utf-8', { ignoreBOM: true })
  #atStart = true

  /** @param bytesOf the token's bytes, undefined for a token that is left out */
  constructor(bytesOf: (id: number) => Uint8Array | undefined, dropsLeadingSpace: boolean) {
    this.#bytesOf = bytesOf
    this.#dropsLeadingSpace = dropsLeadingSpace
  }

  push(id: number): string {
    const bytes = this.#bytesOf(id)
    return bytes ? this.#withoutLeadingSpace(this.#utf8.decode(bytes, { stream: true })) : ''
  }

  flush(): string {
    const text = this.#withoutLeadingSpace(this.#utf8.decode())
    this.#atStart = true
    return text
  }

  #withoutLeadingSpace(text: string): string {
    if (!this.#atStart || text === '') return text
    this.#atStart = false
    return this.#dropsLeadingSpace && text[0] === ' ' ? text.slice(1) : text
  }
}
