import { type ProtobufField, readFields } from './protobuf.js'
import { MAX_TOKEN_LENGTH, MAX_VOCABULARY } from './types.js'

/** What a piece is for, by its number in the file. */
const PIECE_TYPES = ['', 'normal', 'unknown', 'control', 'user-defined', 'unused', 'byte'] as const
const MODEL_TYPES = ['', 'unigram', 'BPE', 'word', 'character']

export interface SentencePiece {
  text: string
  score: number
  type: 'normal' | 'unknown' | 'control' | 'byte'
}

interface SentencePieceModel {
  pieces: SentencePiece[]
  bosId: number
  eosId: number
  addDummyPrefix: boolean
}

/**
 * Reads SentencePiece's `tokenizer.model`: the protobuf ModelProto of sentencepiece_model.proto.
 * @throws Error if the file is malformed, or asks for what Llama's tokenizers don't have (another model than BPE,
 * a normalization, user-defined pieces, no byte fallback)
 */
export function readSentencePieceModel(file: Uint8Array): SentencePieceModel {
  const pieces: SentencePiece[] = []
  const trainer: Trainer = { modelType: 1, byteFallback: false, spaceAsSuffix: false, bosId: 1, eosId: 2 }
  const normalizer: Normalizer = { charsmap: 0, addDummyPrefix: true, removeExtraSpaces: true, escapeSpaces: true }
  for (const field of readFields(file)) {
    if (field.number === 1) pieces.push(readPiece(field, pieces.length))
    if (field.number === 2) readTrainer(field, trainer)
    if (field.number === 3 || field.number === 5) readNormalizer(field, normalizer, field.number === 5)
    if (pieces.length > MAX_VOCABULARY) throw new Error(`Expected at most ${MAX_VOCABULARY} pieces but received more`)
  }
  if (pieces.length === 0) throw new Error('Expected pieces in the SentencePiece model but found none')
  checkSupported(trainer, normalizer)
  checkControl(pieces, trainer.bosId, 'beginning-of-text')
  checkControl(pieces, trainer.eosId, 'end-of-text')
  return { pieces, bosId: trainer.bosId, eosId: trainer.eosId, addDummyPrefix: normalizer.addDummyPrefix }
}

interface Trainer {
  modelType: number
  byteFallback: boolean
  spaceAsSuffix: boolean
  bosId: number
  eosId: number
}

interface Normalizer {
  /** Bytes of compiled normalization rules. */
  charsmap: number
  addDummyPrefix: boolean
  removeExtraSpaces: boolean
  escapeSpaces: boolean
}

function readPiece(field: ProtobufField, id: number): SentencePiece {
  const name = `piece ${id}`
  let text = ''
  let score = 0
  let type = 1
  for (const part of subfields(field, name)) {
    if (part.number === 1) text = utf8(bytesOf(part, `the text of ${name}`), name)
    if (part.number === 2) score = floatOf(part, `the score of ${name}`)
    if (part.number === 3) type = varintOf(part, `the type of ${name}`)
  }
  const kind = PIECE_TYPES[type]
  if (kind !== 'normal' && kind !== 'unknown' && kind !== 'control' && kind !== 'byte') {
    throw new Error(`Expected a normal, unknown, control or byte type for ${name} but received ${kind || type}`)
  }
  if (text === '' || text.length > MAX_TOKEN_LENGTH) {
    throw new Error(`Expected 1 to ${MAX_TOKEN_LENGTH} characters for ${name} but received ${text.length}`)
  }
  if (!Number.isFinite(score)) throw new Error(`Expected a finite score for ${name} but received ${score}`)
  return { text, score, type: kind }
}

function readTrainer(field: ProtobufField, trainer: Trainer): void {
  for (const part of subfields(field, 'the trainer settings')) {
    if (part.number === 3) trainer.modelType = varintOf(part, 'the model type')
    if (part.number === 24) trainer.spaceAsSuffix = varintOf(part, 'treat_whitespace_as_suffix') !== 0
    if (part.number === 35) trainer.byteFallback = varintOf(part, 'byte_fallback') !== 0
    if (part.number === 41) trainer.bosId = varintOf(part, 'bos_id')
    if (part.number === 42) trainer.eosId = varintOf(part, 'eos_id')
  }
}

function readNormalizer(field: ProtobufField, normalizer: Normalizer, forDecoding: boolean): void {
  for (const part of subfields(field, 'the normalizer settings')) {
    if (part.number === 2) normalizer.charsmap += bytesOf(part, 'the normalization rules').length
    if (forDecoding) continue
    if (part.number === 3) normalizer.addDummyPrefix = varintOf(part, 'add_dummy_prefix') !== 0
    if (part.number === 4) normalizer.removeExtraSpaces = varintOf(part, 'remove_extra_whitespaces') !== 0
    if (part.number === 5) normalizer.escapeSpaces = varintOf(part, 'escape_whitespaces') !== 0
  }
}

function checkSupported(trainer: Trainer, normalizer: Normalizer): void {
  const unsupported = (what: string) => new Error(`Expected a SentencePiece model as Llama's but received ${what}`)
  if (trainer.modelType !== 2) {
    throw unsupported(`model type ${MODEL_TYPES[trainer.modelType] || trainer.modelType} instead of BPE`)
  }
  if (!trainer.byteFallback) throw unsupported('one without byte fallback')
  if (trainer.spaceAsSuffix) throw unsupported('one with spaces at the ends of words')
  if (normalizer.charsmap > 0) throw unsupported('one with normalization rules')
  if (normalizer.removeExtraSpaces) throw unsupported('one that removes extra spaces')
  if (!normalizer.escapeSpaces) throw unsupported('one that leaves spaces unmarked')
}

function checkControl(pieces: readonly SentencePiece[], id: number, name: string): void {
  if (pieces[id]?.type === 'control') return
  throw new Error(`Expected a control piece for the ${name} id ${id} but received ${pieces[id]?.type ?? 'none'}`)
}

function* subfields(field: ProtobufField, name: string): Generator<ProtobufField> {
  const bytes = bytesOf(field, name)
  yield* readFields(bytes, field.end - bytes.length)
}

function bytesOf(field: ProtobufField, name: string): Uint8Array {
  return field.bytes ?? wrongType(field, name, 'bytes')
}

function floatOf(field: ProtobufField, name: string): number {
  return field.float ?? wrongType(field, name, 'a 32-bit float')
}

function varintOf(field: ProtobufField, name: string): number {
  return field.varint ?? wrongType(field, name, 'a varint')
}

function wrongType(field: ProtobufField, name: string, expected: string): never {
  throw new Error(`Expected ${expected} for ${name} but received another wire type, before byte ${field.end}`)
}

function utf8(bytes: Uint8Array, name: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new Error(`Expected UTF-8 for the text of ${name} but received other bytes`, { cause })
  }
}
