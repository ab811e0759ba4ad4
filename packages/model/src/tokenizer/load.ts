import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { JsonNode } from './json-node.js'
import { parseSentencePiece } from './sentencepiece.js'
import { parseTiktoken } from './tiktoken.js'
import { parseTokenizerJson, type SpecialNames } from './tokenizer-json.js'
import type { Tokenizer } from './types.js'

/** Tokenizer files are some megabytes; more than this is something else. */
const MAX_FILE_BYTES = 256 * 2 ** 20

/**
 * The tokenizer of a model directory: `tokenizer.json` (with the names in `tokenizer_config.json`), else
 * `tokenizer.model`, which is Llama 2's SentencePiece protobuf or Llama 3's list of ranks.
 * @throws Error naming the file that is wrong, or those looked for
 */
export async function loadTokenizer(directory: string): Promise<Tokenizer> {
  const json = await readIfThere(join(directory, 'tokenizer.json'))
  if (json) {
    const names = await readSpecialNames(join(directory, 'tokenizer_config.json'))
    return within(directory, () => parseTokenizerJson(json.toString('utf8'), names))
  }
  const path = join(directory, 'tokenizer.model')
  const model = await readIfThere(path)
  if (model) return within(path, () => parseTokenizerModel(model))
  throw new Error(`Expected tokenizer.json or tokenizer.model in ${directory} but found neither`)
}

/**
 * A tokenizer from the bytes of a `tokenizer.model` of either kind.
 * @throws Error if it is neither, or malformed
 */
export function parseTokenizerModel(file: Uint8Array): Tokenizer {
  const start = Buffer.from(file.subarray(0, 2048)).toString('latin1')
  if (/^[A-Za-z0-9+/]+=* \d+\r?\n/.test(start)) return parseTiktoken(file)
  if (start[0] === '\n') return parseSentencePiece(file) // the tag of the first piece: field 1, a message
  throw new Error('Expected a SentencePiece model or lines of "base64 rank" but received other bytes')
}

async function readSpecialNames(path: string): Promise<SpecialNames> {
  const file = await readIfThere(path)
  if (!file) return {}
  const config = JsonNode.parse(file.toString('utf8'), path)
  return { bos: readName(config.get('bos_token')), eos: readName(config.get('eos_token')) }
}

/** A token's name, or an object with it as `content`. */
function readName(node: JsonNode): string | undefined {
  if (node.absent) return undefined
  return typeof node.value === 'object' ? node.get('content').string() : node.string()
}

async function readIfThere(path: string): Promise<Buffer | undefined> {
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!info) return undefined
  if (info.size > MAX_FILE_BYTES) {
    throw new Error(`Expected at most ${MAX_FILE_BYTES} bytes for ${path} but it has ${info.size}`)
  }
  return readFile(path)
}

function within(path: string, parse: () => Tokenizer): Tokenizer {
  try {
    return parse()
  } catch (cause) {
    throw new Error(`${path}: ${(cause as Error).message}`, { cause })
  }
}
