import { byteLengthOf, dtypeOfCode, type StoredDType } from './dtypes.js'
import { quoted, SafetensorsError } from './error.js'
import { HeaderScanner } from './scanner.js'

/** The format's own limit on a header. */
export const MAX_HEADER_BYTES = 100_000_000

/** More dimensions than any array library has. */
export const MAX_RANK = 64

/** Bytes of the little-endian u64 that says how long the header is. */
export const LENGTH_BYTES = 8

/** The key of a header that isn't a tensor. */
export const METADATA_KEY = '__metadata__'

export interface TensorInfo {
  readonly dtype: StoredDType
  /** Empty for a scalar. */
  readonly shape: readonly number[]
  /** Where its bytes begin, from the start of the file. */
  readonly offset: number
  readonly bytes: number
}

export interface Header {
  /** In the order of the header. */
  readonly tensors: ReadonlyMap<string, TensorInfo>
  /** Without a prototype, so that any key is safe. */
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Checks the header's length against the format's limit and the file, before anything is allocated for it.
 * @param prefix the first eight bytes of the file, or fewer if it has no more
 */
export function headerLength(path: string, prefix: Uint8Array, fileBytes: number): number {
  if (prefix.length < LENGTH_BYTES) {
    throw new SafetensorsError(path, `Expected a file of at least 8 bytes but received ${prefix.length}`)
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset).getBigUint64(0, true)
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new SafetensorsError(path, `Expected a header of at most ${MAX_HEADER_BYTES} bytes but received ${length}`)
  }
  if (Number(length) > fileBytes - LENGTH_BYTES) {
    const rest = fileBytes - LENGTH_BYTES
    throw new SafetensorsError(path, `Expected a header within the file's other ${rest} bytes but received ${length}`)
  }
  return Number(length)
}

/**
 * Parses and checks a header: every tensor's bytes fit its shape, and the tensors cover the rest of the file without
 * overlap, hole or rest.
 * @param bytes the header alone
 * @throws SafetensorsError with the one problem found first
 */
export function parseHeader(path: string, bytes: Uint8Array, fileBytes: number): Header {
  const fail = (problem: string): never => {
    throw new SafetensorsError(path, problem)
  }
  const dataStart = LENGTH_BYTES + bytes.length
  const tensors = new Map<string, TensorInfo>()
  const metadata: Record<string, string> = Object.create(null)
  const scanner = new HeaderScanner(decodeUtf8(path, bytes), fail)
  scanner.object('the header', (key) => {
    if (key === METADATA_KEY) {
      scanner.object('the metadata', (name) => {
        metadata[name] = scanner.string(`the metadata ${quoted(name)}`)
      })
    } else tensors.set(key, readTensorInfo(scanner, key, dataStart, fileBytes, fail))
  })
  scanner.end()
  checkCoverage(tensors, dataStart, fileBytes, fail)
  return { tensors, metadata }
}

function decodeUtf8(path: string, bytes: Uint8Array): string {
  // The format wants `{` as the first byte: no white space, no byte order mark.
  if (bytes[0] !== 0x7b) {
    const received = bytes.length === 0 ? 'an empty header' : `byte 0x${bytes[0].toString(16).padStart(2, '0')}`
    throw new SafetensorsError(path, `Expected { as the header's first byte but received ${received}`)
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new SafetensorsError(path, 'Expected a header in UTF-8 but received other bytes', { cause })
  }
}

function readTensorInfo(
  scanner: HeaderScanner,
  name: string,
  dataStart: number,
  fileBytes: number,
  fail: (problem: string) => never,
): TensorInfo {
  const tensor = `tensor ${quoted(name)}`
  let code: string | undefined
  let shape: number[] | undefined
  let offsets: number[] | undefined
  scanner.object(tensor, (key) => {
    if (key === 'dtype') code = scanner.string(`the dtype of ${tensor}`)
    else if (key === 'shape') shape = scanner.integers(`the shape of ${tensor}`, MAX_RANK)
    else if (key === 'data_offsets') offsets = scanner.integers(`the data_offsets of ${tensor}`, 2)
    else fail(`Expected dtype, shape and data_offsets for ${tensor} but received ${quoted(key)}`)
  })
  if (code === undefined) fail(`Expected a dtype for ${tensor} but received none`)
  if (shape === undefined) fail(`Expected a shape for ${tensor} but received none`)
  if (offsets === undefined) fail(`Expected data_offsets for ${tensor} but received none`)
  if (offsets.length !== 2) fail(`Expected two data_offsets for ${tensor} but received ${offsets.length}`)

  const dtype = dtypeOfCode(code)
  if (dtype === 'unknown') fail(`Expected a known dtype for ${tensor} but received ${quoted(code)}`)
  if (dtype === 'unsupported') fail(`Expected a supported dtype for ${tensor} but received ${code}`)
  const [begin, end] = offsets
  if (begin > end) fail(`Expected data_offsets in order for ${tensor} but received [${begin},${end}]`)
  const dataBytes = fileBytes - dataStart
  if (end > dataBytes) {
    fail(`Expected the bytes of ${tensor} within the file's ${dataBytes} bytes of data but received an end of ${end}`)
  }
  const bytes = byteLengthOf(dtype, shape)
  if (bytes === undefined) fail(`Expected a size below 2^53 bytes for ${tensor} but received the shape [${shape}]`)
  if (bytes !== end - begin) {
    fail(`Expected ${bytes} bytes for ${tensor} of dtype ${code} and shape [${shape}] but received ${end - begin}`)
  }
  return { dtype, shape, offset: dataStart + begin, bytes }
}

/** The tensors lie end to end over all of the data. */
function checkCoverage(
  tensors: ReadonlyMap<string, TensorInfo>,
  dataStart: number,
  fileBytes: number,
  fail: (problem: string) => never,
): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes)
  let position = dataStart
  for (const [name, { offset, bytes }] of inOrder) {
    if (offset !== position) {
      const problem = offset < position ? 'an overlap' : 'a hole'
      const [expected, received] = [position - dataStart, offset - dataStart]
      fail(`Expected tensor ${quoted(name)} to begin at data byte ${expected} but received ${problem}: ${received}`)
    }
    position = offset + bytes
  }
  if (position !== fileBytes) {
    fail(`Expected the file to end with its last tensor but received ${fileBytes - position} bytes more`)
  }
}
