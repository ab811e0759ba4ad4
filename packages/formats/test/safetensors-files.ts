import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach } from 'vitest'

/** A fresh directory, removed after the test. */
export async function temporaryDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'fireq-formats-'))
  directories.push(directory)
  return directory
}

const directories: string[] = []

afterEach(async () => {
  for (const directory of directories.splice(0)) await rm(directory, { recursive: true, force: true })
})

/** The bytes of a file put together by hand: length, header, data. */
export function fileBytes(header: string | Uint8Array, data: Uint8Array, length?: bigint): Uint8Array {
  const headerBytes = typeof header === 'string' ? new TextEncoder().encode(header) : header
  const bytes = new Uint8Array(8 + headerBytes.length + data.length)
  new DataView(bytes.buffer).setBigUint64(0, length ?? BigInt(headerBytes.length), true)
  bytes.set(headerBytes, 8)
  bytes.set(data, 8 + headerBytes.length)
  return bytes
}

/** Writes bytes to a file in a fresh directory. */
export async function temporaryFile(bytes: Uint8Array, name = 'test.safetensors'): Promise<string> {
  const path = join(await temporaryDirectory(), name)
  await writeFile(path, bytes)
  return path
}
