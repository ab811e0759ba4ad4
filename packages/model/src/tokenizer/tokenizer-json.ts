import { BpeTokenizer } from './bpe-tokenizer.js'
import { fromPrintable } from './byte-alphabet.js'
import { ByteLevelBpe } from './byte-level-bpe.js'
import { JsonNode } from './json-node.js'
import { PairTable } from './pair-table.js'
import { bytePieceIds, SentencePieceBpe } from './sentencepiece-bpe.js'
import { type Pipeline, readBosName, readPipeline } from './tokenizer-json-pipeline.js'
import { type AddedToken, MAX_TOKEN_LENGTH, MAX_VOCABULARY, type SubwordModel, type Tokenizer } from './types.js'

/** Names of special tokens from a `tokenizer_config.json`. */
export interface SpecialNames {
  bos?: string
  eos?: string
}

/** What Llama's tokenizers call their first and last tokens, for files that don't say. */
const BOS_NAMES = ['<|begin_of_text|>', '<s>']
const EOS_NAMES = ['<|end_of_text|>', '<|eom_id|>', '<|eot_id|>', '</s>']

/**
 * A tokenizer from the text of a Hugging Face `tokenizer.json` of Llama's kinds: byte-level BPE (Llama 3) or BPE with
 * byte fallback (Llama 2). Its truncation and padding settings are for batches of training texts, and unused.
 * @param names special tokens that another file names, before the usual names
 * @throws Error naming the part of the file that is malformed or of another kind
 */
export function parseTokenizerJson(text: string, names: SpecialNames = {}): Tokenizer {
  const root = JsonNode.parse(text, 'tokenizer.json')
  root.get('model').get('type').oneOf('BPE', null)
  const pipeline = readPipeline(root)
  const addedTokens = readAddedTokens(root.get('added_tokens'))
  const model = readModel(root.get('model'), pipeline, addedTokens)

  const special = new Map(addedTokens.filter((token) => token.special).map(({ content, id }) => [content, id]))
  const bosName = readBosName(root.get('post_processor')) ?? names.bos ?? BOS_NAMES.find((name) => special.has(name))
  const eosNames = [names.eos, ...EOS_NAMES].filter((name) => name !== undefined)
  for (const name of [bosName, names.eos]) {
    if (name !== undefined && !special.has(name)) {
      throw new Error(`Expected special token ${name} among tokenizer.json's added_tokens but found none`)
    }
  }
  return new BpeTokenizer({
    model,
    addedTokens,
    bosId: bosName === undefined ? undefined : special.get(bosName),
    eosIds: [...new Set(eosNames.flatMap((name) => special.get(name) ?? []))],
    dropsLeadingSpace: pipeline.dropsLeadingSpace,
  })
}

function readAddedTokens(node: JsonNode): AddedToken[] {
  if (node.absent) return []
  return node.array().map((token) => {
    for (const flag of ['single_word', 'lstrip', 'rstrip']) token.get(flag).oneOf(false, null)
    return {
      id: token.get('id').integer(0, MAX_VOCABULARY - 1),
      content: token.get('content').string(),
      special: token.get('special').boolean(false),
    }
  })
}

function readModel(node: JsonNode, pipeline: Pipeline, addedTokens: readonly AddedToken[]): SubwordModel {
  node.get('dropout').oneOf(null, 0)
  node.get('continuing_subword_prefix').oneOf(null, '')
  node.get('end_of_word_suffix').oneOf(null, '')
  const ids = readVocabulary(node.get('vocab'))
  const pairs = readMerges(node.get('merges'), ids)
  const tokens = tokensById(ids, addedTokens)

  const added = new Set(addedTokens.map((token) => token.id))
  const special = new Set(addedTokens.filter((token) => token.special).map((token) => token.id))
  if (pipeline.kind === 'byte-level') {
    const byteStrings = tokens.map((token, id) => {
      if (token === undefined || special.has(id)) return '' // no text becomes it by merging
      return fromPrintable(token) ?? (added.has(id) ? '' : node.get('vocab').fail(`byte-level characters for ${token}`))
    })
    node.get('byte_fallback').oneOf(false, null)
    return new ByteLevelBpe(byteStrings, pairs, node.get('ignore_merges').boolean(false))
  }
  node.get('byte_fallback').oneOf(true)
  node.get('ignore_merges').oneOf(false, null)
  const characters = [...ids].filter(([token, id]) => !special.has(id) && [...token].length === 1)
  return new SentencePieceBpe({
    pieces: tokens.map((token) => token ?? ''),
    pairs,
    symbols: new Map(characters.map(([token, id]) => [token.codePointAt(0)!, id])),
    byteIds: bytePieceIds((piece) => ids.get(piece)),
    prefix: pipeline.prefix,
    splitAtSpaces: pipeline.splitAtSpaces,
  })
}

function readVocabulary(node: JsonNode): Map<string, number> {
  const ids = new Map<string, number>()
  for (const [token, id] of Object.entries(node.object())) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= MAX_VOCABULARY) {
      node.get(token).integer(0, MAX_VOCABULARY - 1)
    }
    if (token === '' || token.length > MAX_TOKEN_LENGTH) {
      throw new Error(
        `Expected tokens of 1 to ${MAX_TOKEN_LENGTH} characters in ${node.path} but token ${id} has ${token.length}`,
      )
    }
    ids.set(token, id as number)
  }
  return ids
}

/** Token by id; undefined where only an added token has that id. */
function tokensById(ids: Map<string, number>, addedTokens: readonly AddedToken[]): (string | undefined)[] {
  const size = Math.max(0, ...addedTokens.map(({ id }) => id + 1))
  const tokens = new Array<string | undefined>(size)
  for (const [token, id] of ids) {
    if (tokens[id] !== undefined)
      throw new Error(`Expected one token for id ${id} but received ${tokens[id]} and ${token}`)
    tokens[id] = token
  }
  const added = new Set(addedTokens.map(({ id }) => id))
  for (let id = 0; id < tokens.length; id++) {
    if (tokens[id] === undefined && !added.has(id))
      throw new Error(`Expected a token for id ${id} in tokenizer.json but found none`)
  }
  return Array.from(tokens)
}

/** Merges in the order of their ranks, each "left right" or [left, right]. */
function readMerges(node: JsonNode, ids: Map<string, number>): PairTable {
  if (!Array.isArray(node.value)) node.fail('an array')
  const merges = node.value as unknown[]
  if (merges.length > MAX_VOCABULARY) throw new Error(`Expected at most ${MAX_VOCABULARY} merges but received more`)
  const pairs = new PairTable(merges.length)
  for (let rank = 0; rank < merges.length; rank++) {
    const merge = merges[rank]
    const [left, right, ...rest] = typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? merge : []
    const [leftId, rightId, mergedId] = [ids.get(left), ids.get(right), ids.get(left + right)]
    if (rest.length > 0 || leftId === undefined || rightId === undefined || mergedId === undefined) {
      return node.array()[rank].fail('two tokens that join to a third')
    }
    pairs.set(leftId, rightId, rank, mergedId)
  }
  return pairs
}
