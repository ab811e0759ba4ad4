import { readFile, stat } from 'node:fs/promises'

/** More than this is no evaluation or calibration text, and wouldn't fit into one string. */
const MAX_BYTES = 2 ** 29

/** @throws Error naming the file, where it can't be read, is empty, or is too large */
export async function readData(path: string): Promise<Buffer> {
  const info = await stat(path)
  if (!info.isFile()) throw new Error(`${path}: Expected a file of text or tokens but received a directory`)
  if (info.size === 0) throw new Error(`${path}: Expected text or tokens but the file is empty`)
  if (info.size > MAX_BYTES) {
    throw new Error(`${path}: Expected at most ${MAX_BYTES} bytes of text or tokens but received ${info.size}`)
  }
  return await readFile(path)
}

/** @throws Error naming the file, where its bytes aren't UTF-8 */
export function decodeText(path: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new Error(`${path}: Expected text in UTF-8 but received other bytes`, { cause })
  }
}
