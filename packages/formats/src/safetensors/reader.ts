import { type FileHandle, open } from 'node:fs/promises'
import { quoted, SafetensorsError } from './error.js'
import { type Header, headerLength, LENGTH_BYTES, parseHeader, type TensorInfo } from './header.js'
import type { TensorStore } from './store.js'

/** A read of more than this at once fails on some systems. */
const MAX_READ = 2 ** 30

/** An open safetensors file. Only its header is in memory; tensors are read when asked for. */
export class SafetensorsFile implements TensorStore {
  readonly path: string
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** The header's `__metadata__`, without a prototype. */
  readonly metadata: Readonly<Record<string, string>>
  #handle: FileHandle | undefined

  /** Use {@link openSafetensors}. */
  constructor(path: string, header: Header, handle: FileHandle) {
    this.path = path
    this.tensors = header.tensors
    this.metadata = header.metadata
    this.#handle = handle
  }

  names(): string[] {
    return [...this.tensors.keys()]
  }

  has(name: string): boolean {
    return this.tensors.has(name)
  }

  info(name: string): TensorInfo {
    const info = this.tensors.get(name)
    if (!info)
      throw new SafetensorsError(this.path, `Expected tensor ${quoted(name)} but the file has none of that name`)
    return info
  }

  fileOf(_name: string): string {
    return this.path
  }

  async read(name: string): Promise<Uint8Array> {
    return this.readRange(name, 0, this.info(name).bytes)
  }

  async readRange(name: string, byteStart: number, byteEnd: number): Promise<Uint8Array> {
    const { offset, bytes } = this.info(name)
    const inOrder = byteStart >= 0 && byteStart <= byteEnd && byteEnd <= bytes
    if (!Number.isSafeInteger(byteStart) || !Number.isSafeInteger(byteEnd) || !inOrder) {
      const problem = `Expected a range within 0…${bytes} of tensor ${quoted(name)} but received ${byteStart}…${byteEnd}`
      throw new SafetensorsError(this.path, problem)
    }
    if (!this.#handle) throw new SafetensorsError(this.path, 'Expected an open file but it is closed')
    return readFully(this.path, this.#handle, offset + byteStart, byteEnd - byteStart)
  }

  async close(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/**
 * Opens a safetensors file and checks its header completely; no tensor is read.
 * @throws SafetensorsError with the one problem found first
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await open(path, 'r').catch((cause: NodeJS.ErrnoException) => {
    const received = cause.code === 'ENOENT' ? 'none' : cause.message
    throw new SafetensorsError(path, `Expected a safetensors file but received ${received}`, { cause })
  })
  try {
    const stat = await handle.stat()
    if (!stat.isFile()) throw new SafetensorsError(path, 'Expected a safetensors file but received something else')
    const prefix = await readFully(path, handle, 0, Math.min(stat.size, LENGTH_BYTES))
    const length = headerLength(path, prefix, stat.size)
    const header = parseHeader(path, await readFully(path, handle, LENGTH_BYTES, length), stat.size)
    return new SafetensorsFile(path, header, handle)
  } catch (error) {
    await handle.close()
    throw error
  }
}

async function readFully(path: string, handle: FileHandle, offset: number, bytes: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(bytes)
  let done = 0
  while (done < bytes) {
    const { bytesRead } = await handle.read(buffer, done, Math.min(bytes - done, MAX_READ), offset + done)
    if (bytesRead === 0) {
      throw new SafetensorsError(
        path,
        `Expected ${bytes} bytes at ${offset} but the file has been cut to end before them`,
      )
    }
    done += bytesRead
  }
  return buffer
}
