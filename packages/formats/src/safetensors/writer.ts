import { AtomicFile } from '../files/atomic.js'
import { quoted, SafetensorsError } from './error.js'
import type { TensorInfo } from './header.js'
import { layOut, type TensorSpec } from './layout.js'

/** A tensor's bytes at once (any typed array: its memory is written as it is), or in chunks. */
export type TensorBytes = ArrayBufferView | Iterable<Uint8Array> | AsyncIterable<Uint8Array>

export interface CreateOptions {
  /** The header's `__metadata__`. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Replace what is there. Default false: that is an error. */
  readonly overwrite?: boolean
}

/** Tensors declared beforehand, written in any order, also concurrently, each once. */
export interface TensorWriter extends AsyncDisposable {
  /** @throws SafetensorsError on an undeclared tensor, a second time, or another number of bytes than declared */
  write(name: string, data: TensorBytes): Promise<void>
  /** Checks that all is written and makes the files appear under their names, durably. */
  finish(): Promise<void>
  /** Leaves nothing behind. After `finish` it does nothing; leaving an `await using` block calls it. */
  abort(): Promise<void>
}

/**
 * Creates a safetensors file that streams to a temporary name and appears when `finish` is called.
 * @throws SafetensorsError on specs that the format can't hold; Error where `path` exists and `overwrite` isn't set
 */
export async function createSafetensors(
  path: string,
  specs: readonly TensorSpec[],
  options: CreateOptions = {},
): Promise<SafetensorsWriter> {
  const { prefix, tensors, fileBytes } = layOut(path, specs, options.metadata)
  const file = await AtomicFile.create(path, options.overwrite)
  try {
    await writeFully(file, prefix, 0)
    await file.handle.truncate(fileBytes)
    return new SafetensorsWriter(file, tensors)
  } catch (error) {
    await file.abort()
    throw error
  }
}

/** Writes one file. Use {@link createSafetensors}. */
export class SafetensorsWriter implements TensorWriter {
  readonly #file: AtomicFile
  readonly #tensors: ReadonlyMap<string, TensorInfo>
  readonly #begun = new Set<string>()
  readonly #written = new Set<string>()

  constructor(file: AtomicFile, tensors: ReadonlyMap<string, TensorInfo>) {
    this.#file = file
    this.#tensors = tensors
  }

  async write(name: string, data: TensorBytes): Promise<void> {
    const info = this.#tensors.get(name)
    if (!info) throw this.#error(`Expected a declared tensor but received ${quoted(name)}`)
    if (this.#begun.has(name)) throw this.#error(`Expected tensor ${quoted(name)} once but received it again`)
    this.#begun.add(name)
    const refuse = (received: string): never => {
      throw this.#error(`Expected ${info.bytes} bytes for tensor ${quoted(name)} but received ${received}`)
    }
    let done = 0
    for await (const chunk of ArrayBuffer.isView(data) ? [data] : data) {
      if (done + chunk.byteLength > info.bytes) refuse(`${done + chunk.byteLength} or more`)
      await writeFully(this.#file, chunk, info.offset + done)
      done += chunk.byteLength
    }
    if (done !== info.bytes) refuse(`${done}`)
    this.#written.add(name)
  }

  /** @throws SafetensorsError naming a tensor that isn't written completely */
  checkComplete(): void {
    for (const name of this.#tensors.keys()) {
      if (!this.#written.has(name)) throw this.#error(`Expected tensor ${quoted(name)} to be written but it isn't`)
    }
  }

  async finish(): Promise<void> {
    this.checkComplete()
    await this.#file.commit()
  }

  async abort(): Promise<void> {
    await this.#file.abort()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.abort()
  }

  #error(problem: string): SafetensorsError {
    return new SafetensorsError(this.#file.path, problem)
  }
}

async function writeFully(file: AtomicFile, data: ArrayBufferView, position: number): Promise<void> {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  let done = 0
  while (done < bytes.length) {
    const { bytesWritten } = await file.handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}
