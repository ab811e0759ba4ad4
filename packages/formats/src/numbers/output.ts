/** Returns `out` after checking its length, or makes it. One sentence for a wrong length: a short output would lose data. */
export function outputFor<T extends { length: number }>(
  out: T | undefined,
  length: number,
  make: (length: number) => T,
  name: string,
): T {
  if (out === undefined) return make(length)
  if (out.length !== length) {
    throw new RangeError(`Expected ${length} elements for the output of ${name} but received ${out.length}`)
  }
  return out
}
