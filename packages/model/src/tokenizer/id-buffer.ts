/** A growing list of ids. */
export class IdBuffer {
  #ids: Int32Array = new Int32Array(64)
  #length = 0

  push(id: number): void {
    if (this.#length === this.#ids.length) {
      const grown = new Int32Array(2 * this.#length)
      grown.set(this.#ids)
      this.#ids = grown
    }
    this.#ids[this.#length++] = id
  }

  toArray(): Int32Array {
    return this.#ids.slice(0, this.#length)
  }
}
