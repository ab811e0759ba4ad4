/** The pattern that cuts a text into words before byte pair encoding, as Llama 3's files spell it. */
export const LLAMA3_SPLIT_PATTERN: string =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// The same in JavaScript. Case is spelled out ("ſ" folds to "s"), and \s becomes \p{White_Space}: JavaScript's \s has
// U+FEFF and lacks U+0085, where the engines that trained the vocabulary have it the other way around.
const LLAMA3_SPLIT =
  /'(?:[sSſ]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\p{White_Space}\p{L}\p{N}]+[\r\n]*|\p{White_Space}*[\r\n]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu

/**
 * The words of a text: every character is in exactly one.
 * @throws RangeError for one unbroken run of several million characters, where the regular expression's stack ends.
 */
export function* splitWords(text: string): Generator<string> {
  try {
    for (const match of text.matchAll(LLAMA3_SPLIT)) yield match[0]
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause
    throw new RangeError('Expected a text of words but received an unbroken run of millions of characters', { cause })
  }
}
