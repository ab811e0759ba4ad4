import type { ModelTensor } from '../config/llama-tensors.js'
import type { TensorStore } from '../safetensors/store.js'
import type { FloatDType } from '../tensor.js'
import { CheckpointError } from './error.js'

/** How a tensor of the model lies in the files. */
export type StoredTensor = StoredDense | StoredInt4

export interface StoredDense {
  readonly dtype: FloatDType
  readonly shape: readonly number[]
}

/** compressed-tensors' three arrays (`….weight_packed`, `….weight_scale`, `….weight_shape`). */
export interface StoredInt4 {
  readonly dtype: 'i4g'
  readonly shape: readonly [number, number]
  readonly groupSize: number
  readonly scaleDType: FloatDType
}

/** The arrays of an INT4 weight; `name` ends in `.weight`. */
export function int4Names(name: string): { packed: string; scale: string; shape: string } {
  return { packed: `${name}_packed`, scale: `${name}_scale`, shape: `${name}_shape` }
}

const FLOATS: readonly string[] = ['bf16', 'f16', 'f32'] satisfies FloatDType[]

/** Arrays of other tools that don't matter: what a tied model doesn't read, and frequencies that follow from the config. */
const SUPERFLUOUS = /^lm_head\.weight$|\.rotary_emb\.inv_freq$/

/**
 * Finds every tensor of a model in its files, with the right shape and a type that can be read, and nothing else.
 * @returns by Hugging Face name, in the order given
 * @throws CheckpointError naming the file and the first tensor that is wrong
 */
export async function findTensors(
  store: TensorStore,
  expected: readonly ModelTensor[],
): Promise<Map<string, StoredTensor>> {
  const found = new Map<string, StoredTensor>()
  const used = new Set<string>()
  for (const tensor of expected) {
    const { name, quantizable } = tensor
    const arrays = int4Names(name)
    if (quantizable && store.has(arrays.packed)) {
      found.set(name, await findInt4(store, tensor))
      for (const array of Object.values(arrays)) used.add(array)
    } else {
      found.set(name, findDense(store, tensor))
      used.add(name)
    }
  }
  const unknown = store.names().find((name) => !used.has(name) && !SUPERFLUOUS.test(name))
  if (unknown !== undefined) {
    const problem = `Expected only tensors that config.json implies but received "${unknown}"`
    throw new CheckpointError(store.fileOf(unknown), problem)
  }
  return found
}

function findDense(store: TensorStore, { name, shape }: ModelTensor): StoredDense {
  const { dtype } = expectArray(store, name, FLOATS, shape)
  return { dtype: dtype as FloatDType, shape }
}

async function findInt4(store: TensorStore, { name, shape }: ModelTensor): Promise<StoredInt4> {
  const [N, K] = shape
  const arrays = int4Names(name)
  const fail = (array: string, problem: string): never => {
    throw new CheckpointError(store.fileOf(array), problem)
  }
  for (const [suffix, what] of [
    ['_zero_point', 'a symmetric weight, without zero points,'],
    ['_g_idx', 'a weight without activation reordering'],
  ]) {
    const array = `${name}${suffix}`
    if (store.has(array)) fail(array, `Expected ${what} for tensor "${name}" but received "${array}"`)
  }
  if (store.has(name)) fail(name, `Expected tensor "${name}" once but received it as "${arrays.packed}" too`)
  if (K % 8 !== 0) fail(arrays.packed, `Expected K to be a multiple of 8 for tensor "${name}" but received ${K}`)
  expectArray(store, arrays.packed, ['i32'], [N, K / 8])
  expectArray(store, arrays.shape, ['i64'], [2])
  const declared = new BigInt64Array((await store.read(arrays.shape)).buffer)
  if (declared[0] !== BigInt(N) || declared[1] !== BigInt(K)) {
    fail(arrays.shape, `Expected [${N},${K}] for the values of tensor "${arrays.shape}" but received [${declared}]`)
  }
  const scale = expectArray(store, arrays.scale, FLOATS, undefined)
  const groups = scale.shape[1]
  const groupSize = K / groups
  if (scale.shape.length !== 2 || scale.shape[0] !== N || !Number.isInteger(groupSize) || groupSize % 2 !== 0) {
    const expected = `[${N},G] with groups of an even size K/G, K=${K},`
    fail(arrays.scale, `Expected the shape ${expected} for tensor "${arrays.scale}" but received [${scale.shape}]`)
  }
  return { dtype: 'i4g', shape: [N, K], groupSize, scaleDType: scale.dtype as FloatDType }
}

/** The dtype and shape of an array, checked. */
function expectArray(
  store: TensorStore,
  name: string,
  dtypes: readonly string[],
  shape: readonly number[] | undefined,
): { readonly dtype: string; readonly shape: readonly number[] } {
  if (!store.has(name))
    throw new CheckpointError(store.path, `Expected tensor "${name}" but received none of that name`)
  const info = store.info(name)
  const fail = (expected: string, received: string): never => {
    throw new CheckpointError(store.fileOf(name), `Expected ${expected} for tensor "${name}" but received ${received}`)
  }
  if (!dtypes.includes(info.dtype)) fail(`the dtype ${dtypes.join(' or ')}`, info.dtype)
  if (shape && (info.shape.length !== shape.length || info.shape.some((dim, axis) => dim !== shape[axis]))) {
    fail(`the shape [${shape}]`, `[${info.shape}]`)
  }
  return info
}
