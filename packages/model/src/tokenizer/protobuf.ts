/** One field of a protobuf message; which of the values it has follows from its wire type. */
export interface ProtobufField {
  number: number
  /** The low 32 bits of a varint, signed. */
  varint?: number
  /** A 32-bit float. */
  float?: number
  /** A string or a message; a 64-bit value too. */
  bytes?: Uint8Array
  /** Where the value ends, from the beginning of the file. */
  end: number
}

/**
 * The fields of a protobuf message, one after another.
 * @param base where `bytes` begins in the file, for errors
 * @throws Error naming the offset, if the message is cut short or malformed
 */
export function* readFields(bytes: Uint8Array, base = 0): Generator<ProtobufField> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0

  const fail = (what: string): never => {
    throw new Error(`Expected ${what} at byte ${base + at} but the protobuf message is cut short or malformed`)
  }
  const varint = (): number => {
    let low = 0
    for (let shift = 0; shift < 70; shift += 7) {
      if (at >= bytes.length) fail('a varint')
      const byte = bytes[at++]
      if (shift < 32) low |= (byte & 0x7f) << shift
      if (byte < 0x80) return low
    }
    return fail('a varint of at most 10 bytes')
  }
  const take = (length: number): Uint8Array => {
    if (length < 0 || length > bytes.length - at) fail(`a value of ${length >>> 0} bytes`)
    at += length
    return bytes.subarray(at - length, at)
  }
  const value = (wireType: number): Omit<ProtobufField, 'number' | 'end'> => {
    if (wireType === 0) return { varint: varint() }
    if (wireType === 1) return { bytes: take(8) }
    if (wireType === 2) return { bytes: take(varint()) }
    if (wireType === 5) {
      take(4)
      return { float: view.getFloat32(at - 4, true) }
    }
    return fail(`a wire type of 0, 1, 2 or 5 instead of ${wireType}`)
  }

  while (at < bytes.length) {
    const tag = varint()
    const number = tag >>> 3
    if (number === 0) fail('a field number above 0')
    yield { number, ...value(tag & 7), end: base + at }
  }
}
