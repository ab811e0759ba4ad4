import { createHash } from 'node:crypto'
import { loadTokenizer } from '@fireq/model'
import { UsageError } from '../errors.js'
import { decodeText, readData } from './files.js'
import { defaultFraming, type Framing, frameText } from './framing.js'
import { parseTokenFile } from './token-file.js'

/** What a model reads, and where it is from. */
export interface TokenData {
  readonly ids: Int32Array
  readonly file: string
  /** Of the file's bytes. */
  readonly sha256: string
  /** Absent for a file of tokens. */
  readonly framing?: Framing
  /** Whether the tokenizer put a beginning-of-text token first. */
  readonly addedBos: boolean
}

/** A model directory, and its vocabulary's size. */
export interface Reader {
  readonly dir: string
  readonly vocabSize: number
}

/**
 * The tokens of a file: those in a `.bin` file as they are, any other file as text through the model's tokenizer, with a
 * beginning-of-text token if it has one.
 * @throws Error naming the file, where it can't be read as either
 */
export async function loadTokens(path: string, model: Reader, framing?: Framing): Promise<TokenData> {
  const bytes = await readData(path)
  const sha256 = createHash('sha256').update(bytes).digest('hex')
  if (path.endsWith('.bin')) {
    if (framing !== undefined) throw new UsageError('--framing is for text, but --data is a file of tokens')
    return { ids: parseTokenFile(path, bytes, model.vocabSize), file: path, sha256, addedBos: false }
  }
  const used = framing ?? defaultFraming(path)
  const tokenizer = await loadTokenizer(model.dir)
  const addedBos = tokenizer.bosId !== undefined
  const ids = tokenizer.encode(frameText(decodeText(path, bytes), used), { addBos: addedBos })
  checkVocabulary(ids, model)
  return { ids, file: path, sha256, framing: used, addedBos }
}

/** @throws Error where the tokenizer has ids that the model hasn't */
export function checkVocabulary(ids: Int32Array, { dir, vocabSize }: Reader): void {
  const foreign = ids.find((id) => id >= vocabSize)
  if (foreign !== undefined) {
    throw new Error(`${dir}: Expected a tokenizer of ${vocabSize} ids, as config.json says, but it gave id ${foreign}`)
  }
}
