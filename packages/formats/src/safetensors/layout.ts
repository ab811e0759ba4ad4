import { byteLengthOf, bytesPerElement, codeOfDType, type StoredDType } from './dtypes.js'
import { quoted, SafetensorsError } from './error.js'
import { LENGTH_BYTES, MAX_HEADER_BYTES, MAX_RANK, METADATA_KEY, type TensorInfo } from './header.js'

/** A tensor to be written. */
export interface TensorSpec {
  readonly name: string
  readonly dtype: StoredDType
  readonly shape: readonly number[]
}

interface Layout {
  /** The length and the header, all bytes before the data. */
  readonly prefix: Uint8Array
  readonly tensors: ReadonlyMap<string, TensorInfo>
  readonly fileBytes: number
}

/**
 * Lays out a file. Wider element types come first (otherwise in the order given) and the header is padded to a multiple
 * of eight, so that every tensor is aligned for its type in a mapped file.
 */
export function layOut(
  path: string,
  specs: readonly TensorSpec[],
  metadata: Readonly<Record<string, string>> | undefined,
): Layout {
  checkSpecs(path, specs)
  const inOrder = [...specs].sort((a, b) => bytesPerElement(b.dtype) - bytesPerElement(a.dtype))
  const entries = metadata ? [`"${METADATA_KEY}":${JSON.stringify(metadata)}`] : []
  const placed: { name: string; begin: number; bytes: number; spec: TensorSpec }[] = []
  let position = 0
  for (const spec of inOrder) {
    const bytes = specBytes(path, spec)
    const value = { dtype: codeOfDType(spec.dtype), shape: spec.shape, data_offsets: [position, position + bytes] }
    entries.push(`${JSON.stringify(spec.name)}:${JSON.stringify(value)}`)
    placed.push({ name: spec.name, begin: position, bytes, spec })
    position += bytes
  }
  const prefix = prefixOf(path, `{${entries.join(',')}}`)
  const tensors = new Map(
    placed.map(({ name, begin, bytes, spec: { dtype, shape } }) => [
      name,
      { dtype, shape: [...shape], offset: prefix.length + begin, bytes },
    ]),
  )
  return { prefix, tensors, fileBytes: prefix.length + position }
}

/** Bytes of a tensor to be written, its dtype and shape checked. */
export function specBytes(path: string, { name, dtype, shape }: TensorSpec): number {
  if (codeOfDType(dtype) === undefined) {
    throw new SafetensorsError(path, `Expected a stored dtype for tensor ${quoted(name)} but received ${dtype}`)
  }
  const bytes = shape.every((dim) => Number.isSafeInteger(dim) && dim >= 0) ? byteLengthOf(dtype, shape) : undefined
  if (bytes === undefined || shape.length > MAX_RANK) {
    throw new SafetensorsError(path, `Expected a valid shape for tensor ${quoted(name)} but received [${shape}]`)
  }
  return bytes
}

/** Every name once, and one that the format allows. */
export function checkSpecs(path: string, specs: readonly TensorSpec[]): void {
  const names = new Set<string>()
  for (const { name } of specs) {
    if (name === METADATA_KEY || /\p{Surrogate}/u.test(name)) {
      throw new SafetensorsError(path, `Expected a tensor name that the format allows but received ${quoted(name)}`)
    }
    if (names.has(name)) {
      throw new SafetensorsError(path, `Expected every tensor once but received ${quoted(name)} twice`)
    }
    names.add(name)
  }
}

function prefixOf(path: string, header: string): Uint8Array {
  const bytes = new TextEncoder().encode(header)
  const length = Math.ceil(bytes.length / 8) * 8
  if (length > MAX_HEADER_BYTES) {
    throw new SafetensorsError(path, `Expected a header of at most ${MAX_HEADER_BYTES} bytes but received ${length}`)
  }
  const prefix = new Uint8Array(LENGTH_BYTES + length).fill(0x20)
  new DataView(prefix.buffer).setBigUint64(0, BigInt(length), true)
  prefix.set(bytes, LENGTH_BYTES)
  return prefix
}
