import { readFile, stat } from 'node:fs/promises'
import type { z } from 'zod'
import { ConfigError } from './config-error.js'

/** Far above any real config, tokenizer excluded; a limit so that a wrong file isn't read into memory. */
const LARGEST_JSON = 100_000_000

/**
 * Reads a JSON file of at most 100 MB.
 * @throws ConfigError naming the file where it is missing, too large or not JSON (Python's NaN and Infinity aren't)
 */
export async function readJsonFile(path: string): Promise<unknown> {
  let text: string
  try {
    const { size } = await stat(path)
    if (size > LARGEST_JSON) {
      throw new ConfigError(`Expected at most ${LARGEST_JSON} bytes for ${path} but received ${size}`)
    }
    text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(path))
  } catch (error) {
    if (error instanceof ConfigError) throw error
    throw new ConfigError(`Expected a readable UTF-8 file at ${path} but received: ${(error as Error).message}`, {
      cause: error,
    })
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new ConfigError(`Expected JSON in ${path} but received: ${(error as Error).message}`, { cause: error })
  }
}

/**
 * What `schema` makes of `value`. The messages of a schema say what was expected ("an integer from 1 to 10"), and become
 * "Expected <that> for <field> in <where> but received <value>".
 * @param at the field that `value` was found in, if it isn't the whole file
 * @throws ConfigError for the first thing that is wrong
 */
export function validate<T>(schema: z.ZodType<T>, value: unknown, where: string, at: string[] = []): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const issue = result.error.issues[0]
  const path = [...at, ...issue.path.map(String)]
  if (issue.code === 'unrecognized_keys') {
    throw new ConfigError(`Expected no field ${[...path, issue.keys[0]].join('.')} in ${where}: its meaning is unknown`)
  }
  throw mismatch(issue.message, path.join('.'), where, valueAt(value, issue.path))
}

/** The error for a field that isn't what was expected. */
export function mismatch(expected: string, field: string, where: string, received: unknown): ConfigError {
  return new ConfigError(`Expected ${expected}${field && ` for ${field}`} in ${where} but received ${show(received)}`)
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[key], value)
}

/** A value as a person wrote it, cut to a line's length. */
function show(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value))
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
