/** Largest allowed |actual − expected| of an element. 0: equal to the bit, −0 and NaN patterns aside. */
export type Tolerance = (expected: number, index: number) => number

/** All within one, and nine of ten within a narrower one: for what rounds to few bits and may now and then go the other way. */
export interface TwoTolerances {
  readonly all: Tolerance
  readonly most: Tolerance
}

export const exact: Tolerance = () => 0
/** A number of steps of the output's type, and something for sums that cancel. */
export function within(relative: number, absolute = 0): Tolerance {
  return (expected) => Math.abs(expected) * relative + absolute
}

/** One step of a BF16 number, relative: rounding a value that is a little off may go the other way. */
export const BF16_STEP: number = 2 ** -7

/** Undefined if all elements agree; otherwise a sentence with the first that doesn't, where it is and both values. */
export function firstDifference(
  name: string,
  columns: number,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  tolerance: Tolerance | TwoTolerances,
  tolerated = 0,
): string | undefined {
  if (typeof tolerance !== 'function') {
    return (
      firstDifference(name, columns, actual, expected, tolerance.all) ??
      firstDifference(`most of ${name}`, columns, actual, expected, tolerance.most, expected.length / 10)
    )
  }
  if (actual.length !== expected.length) return `${name} has ${actual.length} elements instead of ${expected.length}`
  let bad = 0
  let first = -1
  for (let i = 0; i < expected.length; i++) {
    if (agree(actual[i]!, expected[i]!, tolerance, i)) continue
    if (bad++ === 0) first = i
  }
  if (bad <= tolerated) return undefined
  const where = columns > 1 ? `[${Math.floor(first / columns)}, ${first % columns}]` : `[${first}]`
  const allowed = tolerance(expected[first]!, first)
  return `${name}${where} is ${actual[first]} but should be ${expected[first]} ± ${allowed} (${bad} of ${expected.length} differ)`
}

function agree(actual: number, expected: number, tolerance: Tolerance, index: number): boolean {
  if (actual === expected) return true
  if (Number.isNaN(expected)) return Number.isNaN(actual)
  return Number.isFinite(expected) && Math.abs(actual - expected) <= tolerance(expected, index)
}
