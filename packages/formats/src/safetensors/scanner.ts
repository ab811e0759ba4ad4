const QUOTE = 34
const BACKSLASH = 92
const ZERO = 48

/**
 * Reads the JSON of a header, strictly: duplicate keys are refused (`JSON.parse` hides them), numbers are non-negative
 * integers up to 2⁵³ − 1, and nothing is read that wasn't asked for, so that nesting costs no stack.
 */
export class HeaderScanner {
  readonly #text: string
  readonly #fail: (problem: string) => never
  #position = 0

  constructor(text: string, fail: (problem: string) => never) {
    this.#text = text
    this.#fail = fail
  }

  /** Reads `{"key": …, …}`; `readValue` reads the value of each key. `what` names the object in errors. */
  object(what: string, readValue: (key: string) => void): void {
    const keys = new Set<string>()
    this.#expect('{', what)
    if (this.#accept('}')) return
    do {
      const key = this.string(`a key of ${what}`)
      if (keys.has(key)) this.#fail(`Expected every key of ${what} once but received ${JSON.stringify(key)} twice`)
      keys.add(key)
      this.#expect(':', what)
      readValue(key)
    } while (this.#accept(','))
    this.#expect('}', what)
  }

  /** Reads `[integer, …]` of at most `limit` elements. */
  integers(what: string, limit: number): number[] {
    const values: number[] = []
    this.#expect('[', what)
    if (this.#accept(']')) return values
    do {
      if (values.length === limit) this.#fail(`Expected at most ${limit} numbers for ${what} but received more`)
      values.push(this.#integer(what))
    } while (this.#accept(','))
    this.#expect(']', what)
    return values
  }

  string(what: string): string {
    this.#expect('"', what)
    const text = this.#text
    const start = this.#position
    let escaped = false
    let end = start
    for (; ; end++) {
      const c = text.charCodeAt(end)
      if (c === QUOTE) break
      if (!(c >= 32)) this.#fail(`Expected the string of ${what} to end but received ${this.#shown(end)}`)
      if (c === BACKSLASH) {
        escaped = true
        end++
      }
    }
    this.#position = end + 1
    return escaped ? this.#unescaped(text.slice(start, end), what) : text.slice(start, end)
  }

  /** Nothing but white space may be left. */
  end(): void {
    this.#skipSpace()
    if (this.#position < this.#text.length) {
      this.#fail(`Expected nothing after the header's object but received ${this.#shown(this.#position)}`)
    }
  }

  #integer(what: string): number {
    this.#skipSpace()
    const text = this.#text
    const start = this.#position
    let end = start
    while (isDigit(text.charCodeAt(end))) end++
    const digits = text.slice(start, end)
    const next = text[end]
    const leadingZero = digits.length > 1 && digits.charCodeAt(0) === ZERO
    if (digits === '' || leadingZero || next === '.' || next === 'e' || next === 'E') {
      this.#fail(`Expected a non-negative integer for ${what} but received ${this.#shown(start, /[,\]}\s]/)}`)
    }
    const value = Number(digits)
    if (value > Number.MAX_SAFE_INTEGER) {
      this.#fail(`Expected an integer below 2^53 for ${what} but received ${this.#shown(start, /[,\]}\s]/)}`)
    }
    this.#position = end
    return value
  }

  #unescaped(raw: string, what: string): string {
    let value: string
    try {
      value = JSON.parse(`"${raw}"`)
    } catch {
      this.#fail(`Expected valid escapes in ${what} but received ${JSON.stringify(raw.slice(0, 40))}`)
    }
    if (/\p{Surrogate}/u.test(value)) {
      this.#fail(`Expected valid Unicode in ${what} but received ${JSON.stringify(raw.slice(0, 40))}`)
    }
    return value
  }

  #skipSpace(): void {
    for (;;) {
      const c = this.#text.charCodeAt(this.#position)
      if (c !== 32 && c !== 10 && c !== 13 && c !== 9) return
      this.#position++
    }
  }

  #accept(char: string): boolean {
    this.#skipSpace()
    if (this.#text[this.#position] !== char) return false
    this.#position++
    return true
  }

  #expect(char: string, what: string): void {
    if (!this.#accept(char)) this.#fail(`Expected ${char} for ${what} but received ${this.#shown(this.#position)}`)
  }

  /** What stands at `position`, in words: up to 20 characters, or fewer before the first `delimiter`. */
  #shown(position: number, delimiter?: RegExp): string {
    const following = this.#text.slice(position, position + 20)
    const excerpt = (delimiter && following.split(delimiter, 1)[0]) || following
    return excerpt === ''
      ? 'the end of the header'
      : `${JSON.stringify(excerpt)} at character ${position} of the header`
  }
}

function isDigit(c: number): boolean {
  return c >= ZERO && c <= ZERO + 9
}
