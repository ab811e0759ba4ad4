import { readFile } from 'node:fs/promises'
import type { Tokenizer } from '@fireq/model'

export interface CalibrationSize {
  readonly windows: number
  /** Tokens a window. */
  readonly length: number
}

/** A file of token ids, uint16 little endian. */
export async function readTokenFile(path: string): Promise<Int32Array> {
  const bytes = await readFile(path)
  if (bytes.length === 0 || bytes.length % 2 !== 0) {
    throw new Error(`Expected token ids of two bytes each in ${path} but received ${bytes.length} bytes`)
  }
  return Int32Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i))
}

/** The tokens of a text file, with BOS first where the tokenizer has one. */
export async function readTextFile(path: string, tokenizer: Tokenizer): Promise<Int32Array> {
  const text = await readFile(path, 'utf8')
  const framed = path.endsWith('.raw') ? joinAsHuggingFace(text) : text
  return tokenizer.encode(framed, { addBos: tokenizer.bosId !== undefined })
}

/**
 * WikiText's raw files framed as by GPTQ and most papers: the rows of Hugging Face's data set, which are lines (an empty
 * one for a blank line), joined by "\n\n".
 */
export function joinAsHuggingFace(text: string): string {
  const lines = text.split('\n')
  if (lines.at(-1) === '') lines.pop()
  return lines.map((line) => (line.trim() === '' ? '' : `${line}\n`)).join('\n\n')
}
