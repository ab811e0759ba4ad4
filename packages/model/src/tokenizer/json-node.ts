/** A value in a JSON file that knows its path, so that a wrong one is named where it is. */
export class JsonNode {
  readonly value: unknown
  readonly file: string
  readonly path: string

  constructor(value: unknown, file: string, path = '') {
    this.value = value
    this.file = file
    this.path = path
  }

  /** @throws Error if the text is no JSON */
  static parse(text: string, file: string): JsonNode {
    try {
      return new JsonNode(JSON.parse(text), file)
    } catch (cause) {
      throw new Error(`Expected JSON in ${file} but received: ${(cause as Error).message}`, { cause })
    }
  }

  /** Whether it is null or not there at all. */
  get absent(): boolean {
    return this.value === null || this.value === undefined
  }

  /** A member of an object, absent where the object has none. */
  get(key: string): JsonNode {
    const value = Object.hasOwn(this.object(), key) ? this.object()[key] : undefined
    return new JsonNode(value, this.file, this.path === '' ? key : `${this.path}.${key}`)
  }

  object(): Record<string, unknown> {
    if (typeof this.value !== 'object' || this.value === null || Array.isArray(this.value)) this.fail('an object')
    return this.value as Record<string, unknown>
  }

  array(): JsonNode[] {
    if (!Array.isArray(this.value)) return this.fail('an array')
    return this.value.map((item: unknown, at) => new JsonNode(item, this.file, `${this.path}[${at}]`))
  }

  string(): string {
    return typeof this.value === 'string' ? this.value : this.fail('a string')
  }

  integer(least: number, most: number): number {
    const { value } = this
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value
    return this.fail(`an integer from ${least} to ${most}`)
  }

  /** A boolean, or `missing` where there is none. */
  boolean(missing: boolean): boolean {
    if (this.absent) return missing
    return typeof this.value === 'boolean' ? this.value : this.fail('a boolean')
  }

  /** The `type` member that tells kinds of objects apart. */
  type(): string {
    return this.get('type').string()
  }

  /** Fails unless the value is one of those (null stands for an absent one too). */
  oneOf(...allowed: (string | number | boolean | null)[]): void {
    if (allowed.some((value) => this.value === value || (value === null && this.absent))) return
    this.fail(allowed.map((value) => JSON.stringify(value)).join(' or '))
  }

  fail(expected: string): never {
    const received = JSON.stringify(this.value) ?? 'nothing'
    const short = received.length > 120 ? `${received.slice(0, 120)}…` : received
    throw new Error(`Expected ${expected} for ${this.path || 'the whole'} in ${this.file} but received ${short}`)
  }
}
