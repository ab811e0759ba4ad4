/**
 * The printable alphabet of byte-level vocabularies: a byte that prints as a Latin-1 character is that character, any
 * other takes the next character from U+0100 on (so a space is `Ġ`).
 */
const byteToChar: string[] = []
const charToByte: Map<string, number> = new Map()

let next = 0x100
for (let byte = 0; byte < 256; byte++) {
  const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
  byteToChar.push(String.fromCharCode(printable ? byte : next++))
  charToByte.set(byteToChar[byte], byte)
}

/** A byte string (one character a byte) in the printable alphabet. */
export function toPrintable(byteString: string): string {
  let text = ''
  for (let at = 0; at < byteString.length; at++) text += byteToChar[byteString.charCodeAt(at)]
  return text
}

/** The byte string of a printable one, or undefined if a character is out of the alphabet. */
export function fromPrintable(text: string): string | undefined {
  let byteString = ''
  for (const char of text) {
    const byte = charToByte.get(char)
    if (byte === undefined) return undefined
    byteString += String.fromCharCode(byte)
  }
  return byteString
}
