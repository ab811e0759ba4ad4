import { InvalidArgumentError } from 'commander'

/** One `--set`: a path into the recipe, and what to put there. */
export interface Setting {
  readonly text: string
  readonly path: readonly string[]
  readonly value: unknown
}

/** Parses `weights.groupSize=64`: the value is JSON where it can be, and else the text itself. */
export function parseSetting(text: string, before: readonly Setting[] = []): readonly Setting[] {
  const [, key, value] = /^([\w.]+)=(.*)$/s.exec(text) ?? []
  const path = key?.split('.') ?? []
  if (value === undefined || path.some((name) => name === '' || name === '__proto__')) {
    throw new InvalidArgumentError('Expected key=value, as in weights.groupSize=64.')
  }
  return [...before, { text, path, value: jsonOr(value) }]
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
