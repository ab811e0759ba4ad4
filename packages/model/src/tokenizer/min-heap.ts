/** A binary min-heap of numbers with room for `capacity` of them. */
export class MinHeap {
  #keys: Float64Array
  #size = 0

  constructor(capacity: number) {
    this.#keys = new Float64Array(capacity)
  }

  get size(): number {
    return this.#size
  }

  push(key: number): void {
    let at = this.#size++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (this.#keys[parent] <= key) break
      this.#keys[at] = this.#keys[parent]
      at = parent
    }
    this.#keys[at] = key
  }

  /** Takes the least key out of a heap that isn't empty. */
  pop(): number {
    const least = this.#keys[0]
    const key = this.#keys[--this.#size]
    let at = 0
    for (let child = 1; child < this.#size; child = 2 * at + 1) {
      if (child + 1 < this.#size && this.#keys[child + 1] < this.#keys[child]) child++
      if (this.#keys[child] >= key) break
      this.#keys[at] = this.#keys[child]
      at = child
    }
    this.#keys[at] = key
    return least
  }
}
