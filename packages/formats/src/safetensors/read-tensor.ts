import type { DenseTensor, FloatDType } from '../tensor.js'
import { bytesPerElement } from './dtypes.js'
import { quoted, SafetensorsError } from './error.js'
import type { TensorStore } from './store.js'

export interface ReadTensorOptions {
  /** The shape the tensor must have. */
  readonly shape?: readonly number[]
  /** Only the rows [start, end) along the first axis. */
  readonly rows?: readonly [number, number]
}

/**
 * Reads a tensor of f32, f16 or bf16, or some of its rows.
 * @throws SafetensorsError on another dtype, another shape than expected, or rows that aren't there
 */
export async function readTensor(
  store: TensorStore,
  name: string,
  options: ReadTensorOptions = {},
): Promise<DenseTensor> {
  const { dtype, shape } = store.info(name)
  const fail = (expected: string, received: string): never => {
    throw new SafetensorsError(store.path, `Expected ${expected} for tensor ${quoted(name)} but received ${received}`)
  }
  if (!isFloat(dtype)) return fail('the dtype f32, f16 or bf16', dtype)
  const { shape: expected, rows } = options
  if (expected && (expected.length !== shape.length || expected.some((dim, axis) => dim !== shape[axis]))) {
    fail(`the shape [${expected}]`, `[${shape}]`)
  }
  if (!rows) return denseOf(dtype, [...shape], await store.read(name))

  const [start, end] = rows
  if (shape.length === 0) fail('a tensor with rows', 'a scalar')
  const [rowCount, ...rest] = shape
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || start < 0 || start > end || end > rowCount) {
    fail(`rows within 0…${rowCount}`, `${start}…${end}`)
  }
  const rowBytes = rest.reduce((product, dim) => product * dim, bytesPerElement(dtype))
  return denseOf(dtype, [end - start, ...rest], await store.readRange(name, start * rowBytes, end * rowBytes))
}

function isFloat(dtype: string): dtype is FloatDType {
  return dtype === 'f32' || dtype === 'f16' || dtype === 'bf16'
}

/** Views bytes that begin a buffer; the format and this machine are little-endian. */
function denseOf(dtype: FloatDType, shape: number[], bytes: Uint8Array): DenseTensor {
  if (dtype === 'f32') return { kind: 'dense', dtype, shape, data: new Float32Array(bytes.buffer, 0, bytes.length / 4) }
  return { kind: 'dense', dtype, shape, data: new Uint16Array(bytes.buffer, 0, bytes.length / 2) }
}
