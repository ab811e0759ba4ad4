/** How {@link Tokenizer.encode} treats the ends of the text and the names of special tokens in it. */
export interface EncodeOptions {
  /** Put the beginning-of-text id first. Default false. */
  addBos?: boolean
  /**
   * Read the names of special tokens (`<|eot_id|>`, `</s>`) in the text as those tokens. Default false: text that
   * comes from a user stays text. Chat prompts made by a template need true.
   */
  parseSpecial?: boolean
}

/** How ids become text. */
export interface DecodeOptions {
  /** Leave special tokens out instead of writing their names. Default false. */
  skipSpecial?: boolean
  /**
   * The ids go on from earlier text. Default false: a Llama 2 tokenizer puts a space before every text it encodes, so
   * decoding drops one leading space; what goes on from a prompt keeps it.
   */
  continuation?: boolean
}

/** Text out of ids as they come, never splitting a character. */
export interface IncrementalDecoder {
  /** The text that id completes, "" while a character still misses bytes. Throws on an id out of the vocabulary. */
  push(id: number): string
  /** The end: U+FFFD for an unfinished character, else "". The decoder then starts anew, with the same options. */
  flush(): string
}

/**
 * Text ↔ token ids. Ids run from 0 to vocabSize - 1.
 *
 * A lone surrogate in a text counts as U+FFFD. Bytes that are no valid UTF-8 decode to U+FFFD as the WHATWG Encoding
 * standard says (one per maximal invalid part).
 */
export interface Tokenizer {
  /** How many ids there are, special tokens included. */
  readonly vocabSize: number
  /** The beginning-of-text id, where the tokenizer has one. */
  readonly bosId: number | undefined
  /** The ids that end a text or a turn. */
  readonly eosIds: readonly number[]
  /** Name → id of every special token. */
  readonly specialTokens: ReadonlyMap<string, number>
  /** The ids of a text. Throws when `addBos` is asked of a tokenizer without such a token. */
  encode(text: string, options?: EncodeOptions): Int32Array
  /** The text of ids. Throws a RangeError on an id out of the vocabulary. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string
  /** A decoder for ids that come one at a time; its outputs joined are what `decode` gives. */
  stream(options?: DecodeOptions): IncrementalDecoder
  /** The token as the vocabulary spells it (`▁the`, `Ġthe`, `<0x0A>`, `<s>`). */
  idToToken(id: number): string
  /** The id of a token spelled as the vocabulary spells it. */
  tokenToId(token: string): number | undefined
  /** The bytes of UTF-8 that the token stands for; a special token's are those of its name. */
  idToBytes(id: number): Uint8Array
  /** Whether `skipSpecial` leaves the id out. */
  isSpecial(id: number): boolean
}

/** A token that is matched in the text before the model sees it. */
export interface AddedToken {
  id: number
  content: string
  /** Matched only under `parseSpecial`, left out under `skipSpecial`. */
  special: boolean
}

/** The subword model under a tokenizer: segments of well-formed text, free of added tokens, to ids. */
export interface SubwordModel {
  /** How many ids the model has, from 0. */
  readonly size: number
  /** Appends the ids of `text`; `atStart` says that no other segment came before. */
  encode(text: string, atStart: boolean, out: { push(id: number): void }): void
  token(id: number): string
  bytes(id: number): Uint8Array
}

/** Above this many ids or merges a tokenizer is refused: ranks and positions share one 53-bit heap key. */
export const MAX_VOCABULARY: number = 1 << 20

/** Above this many characters or bytes a token is refused: building the pair table takes their square. */
export const MAX_TOKEN_LENGTH: number = 1024
