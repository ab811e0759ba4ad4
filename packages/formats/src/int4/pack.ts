/** The nibble of code q is q + 8 (0…15); even elements lie in the low nibble, the order of a little-endian int32 word. */
const BIAS = 8

/**
 * Packs codes, two a byte.
 * @param codes an even number of integers −8…7
 * @returns codes.length / 2 bytes
 * @throws RangeError on an odd length or a code out of range, naming its index
 */
export function packInt4(codes: Int8Array): Uint8Array {
  if (codes.length % 2 !== 0) {
    throw new RangeError(`Expected an even number of codes for packInt4 but received ${codes.length}`)
  }
  const bytes = new Uint8Array(codes.length / 2)
  for (let i = 0; i < bytes.length; i++) {
    const low = codes[2 * i] + BIAS
    const high = codes[2 * i + 1] + BIAS
    if ((low | high) & ~15) {
      const index = low & ~15 ? 2 * i : 2 * i + 1
      throw new RangeError(`Expected a code from -8 to 7 at index ${index} for packInt4 but received ${codes[index]}`)
    }
    bytes[i] = low | (high << 4)
  }
  return bytes
}

/** The codes −8…7 of packed bytes: twice as many elements. */
export function unpackInt4(bytes: Uint8Array): Int8Array {
  const codes = new Int8Array(bytes.length * 2)
  for (let i = 0; i < bytes.length; i++) {
    codes[2 * i] = (bytes[i] & 15) - BIAS
    codes[2 * i + 1] = (bytes[i] >>> 4) - BIAS
  }
  return codes
}
