import { InvalidArgumentError, Option } from 'commander'

// Options that are lists, and parsers of options' values.

/** An option whose default, a list, is shown as one would type it. */
export function listOption<T>(
  flags: string,
  description: string,
  parse: (text: string) => readonly T[],
  values: readonly T[],
  typed: (value: T) => string = String,
): Option {
  return new Option(flags, description).argParser(parse).default(values, values.map(typed).join(','))
}

export function namesOf<T extends string>(known: readonly T[]): (text: string) => readonly T[] {
  return (text) =>
    text.split(',').map((name) => {
      const found = known.find((candidate) => candidate.toLowerCase() === name.toLowerCase())
      if (found === undefined) throw new InvalidArgumentError(`Expected some of ${known.join(', ')}.`)
      return found
    })
}

export function wholeNumbers(text: string): number[] {
  return text.split(',').map(wholeNumber)
}

export function wholeNumber(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > 2 ** 24) {
    throw new InvalidArgumentError('Expected a whole number of at least 1.')
  }
  return value
}
