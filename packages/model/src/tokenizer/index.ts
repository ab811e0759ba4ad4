export { loadTokenizer, parseTokenizerModel } from './load.js'
export { parseTokenizerJson, type SpecialNames } from './tokenizer-json.js'
export type { DecodeOptions, EncodeOptions, IncrementalDecoder, Tokenizer } from './types.js'
