import type { TensorInfo } from './header.js'

/** Named tensors that can be read one by one, or in parts: a safetensors file, or several. */
export interface TensorStore extends AsyncDisposable {
  /** The file or directory, for messages. */
  readonly path: string
  names(): string[]
  has(name: string): boolean
  /** @throws SafetensorsError where there is no such tensor */
  info(name: string): TensorInfo
  /** The path of the file that holds a tensor, for messages. */
  fileOf(name: string): string
  /** All bytes of a tensor, at the start of a buffer of their own, so that a view of any type is aligned. */
  read(name: string): Promise<Uint8Array>
  /** The bytes `byteStart … byteEnd` (end excluded) of a tensor, counted from its first, in a buffer of their own. */
  readRange(name: string, byteStart: number, byteEnd: number): Promise<Uint8Array>
  /** Closes the files. Closing twice is fine. */
  close(): Promise<void>
}
