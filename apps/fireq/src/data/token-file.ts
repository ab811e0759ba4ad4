/**
 * The ids of a file of tokens: little endian, 16 bits each, or 32 where the vocabulary needs them.
 * @throws Error naming the file and the first id that isn't one
 */
export function parseTokenFile(path: string, bytes: Uint8Array, vocabSize: number): Int32Array {
  const width = vocabSize > 65536 ? 4 : 2
  if (bytes.length % width !== 0) {
    throw new Error(`${path}: Expected token ids of ${8 * width} bits but received ${bytes.length} bytes`)
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const ids = new Int32Array(bytes.length / width)
  for (let i = 0; i < ids.length; i++) {
    const id = width === 2 ? view.getUint16(2 * i, true) : view.getUint32(4 * i, true)
    if (id >= vocabSize) {
      throw new Error(`${path}: Expected token ids below the vocabulary of ${vocabSize} but id ${i} is ${id}`)
    }
    ids[i] = id
  }
  return ids
}
