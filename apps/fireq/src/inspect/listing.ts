import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import {
  decodeE4m3,
  type ModelSource,
  openModel,
  openSafetensors,
  openShardedSafetensors,
  readTensor,
  type TensorStore,
  toFloat32,
} from '@fireq/formats'

/** A tensor as people think of it: an INT4 weight is one, though three arrays in the file. */
export interface ListedTensor {
  readonly name: string
  /** As stored; `int4` with its group size and scales for a quantized weight. */
  readonly dtype: string
  readonly shape: readonly number[]
  readonly values: number
  /** Of all its arrays. */
  readonly bytes: number
  /** The file that holds it. */
  readonly file: string
  readonly quantized: boolean
  /** Some of its rows (all of a tensor without rows) in float32; absent for types that aren't floating point. */
  readonly read?: (rows?: readonly [number, number]) => Promise<Float32Array>
}

/** What is at a path: a safetensors file, a directory of them, or a model. */
export interface Listing extends AsyncDisposable {
  readonly path: string
  readonly tensors: readonly ListedTensor[]
  /** Of a single file. */
  readonly metadata?: Readonly<Record<string, string>>
  /** Where config.json says what the tensors are. */
  readonly model?: ModelSource
  /** Why there is a config.json and no model. */
  readonly problem?: Error
}

/** @throws SafetensorsError where the files themselves are broken */
export async function openListing(path: string): Promise<Listing> {
  const info = await stat(path)
  if (!info.isDirectory()) {
    const file = await openSafetensors(path)
    return listing({ path, metadata: file.metadata, tensors: file.names().map((name) => arrayOf(file, name)) }, [file])
  }
  const store = await openShardedSafetensors(path)
  const arrays = store.names().map((name) => arrayOf(store, name))
  const hasConfig = await stat(join(path, 'config.json')).then(
    () => true,
    () => false,
  )
  if (!hasConfig) return listing({ path, tensors: arrays }, [store])
  try {
    const model = await openModel(path)
    return listing({ path, model, tensors: await modelTensors(model, store, arrays) }, [store, model])
  } catch (problem) {
    return listing({ path, tensors: arrays, problem: problem as Error }, [store])
  }
}

function listing(content: Omit<Listing, typeof Symbol.asyncDispose>, open: readonly AsyncDisposable[]): Listing {
  return {
    ...content,
    async [Symbol.asyncDispose]() {
      for (const handle of open) await handle[Symbol.asyncDispose]()
    },
  }
}

function arrayOf(store: TensorStore, name: string): ListedTensor {
  const { dtype, shape, bytes } = store.info(name)
  const values = shape.reduce((product, dim) => product * dim, 1)
  const common = { name, dtype, shape, values, bytes, file: basename(store.fileOf(name)), quantized: false }
  if (dtype === 'e4m3') {
    const rowBytes = shape.length > 0 && shape[0] > 0 ? bytes / shape[0] : bytes
    const range = (rows?: readonly [number, number]) => (rows ? rows.map((row) => row * rowBytes) : [0, bytes])
    const read: ListedTensor['read'] = async (rows) => {
      const [start, end] = range(rows)
      return decodeE4m3(await store.readRange(name, start, end))
    }
    return { ...common, read }
  }
  if (dtype !== 'f32' && dtype !== 'f16' && dtype !== 'bf16') return common
  return { ...common, read: async (rows) => toFloat32(await readTensor(store, name, { rows })) }
}

/** The model's tensors, INT4 ones put together; then arrays that the model doesn't read. */
async function modelTensors(
  model: ModelSource,
  store: TensorStore,
  arrays: readonly ListedTensor[],
): Promise<ListedTensor[]> {
  const rest = new Map(arrays.map((array) => [array.name, array]))
  const tensors: ListedTensor[] = []
  for (const name of model.names()) {
    const read: ListedTensor['read'] = async (rows) => toFloat32(await model.tensor(name, { rows }))
    const plain = rest.get(name)
    if (plain) {
      rest.delete(name)
      tensors.push({ ...plain, read })
      continue
    }
    const parts = ['_packed', '_scale', '_shape'].map((suffix) => rest.get(`${name}${suffix}`)!)
    for (const part of parts) rest.delete(part.name)
    const shape = model.shape(name)
    tensors.push({
      name,
      dtype: await int4Type(model, name),
      shape,
      values: shape[0] * shape[1],
      bytes: parts.reduce((sum, { bytes }) => sum + bytes, 0),
      file: basename(store.fileOf(`${name}_packed`)),
      quantized: true,
      read,
    })
  }
  return [...tensors, ...rest.values()]
}

async function int4Type(model: ModelSource, name: string): Promise<string> {
  const tensor = await model.tensor(name, { rows: [0, 1] })
  const { scale, tensorScaleExponent = 0, lookupRounding } = model.quantization!.weights[name]
  const groupSize = tensor.kind === 'int4' ? tensor.groupSize : 0
  const factor = tensorScaleExponent === 0 ? '' : ` ×2^-${tensorScaleExponent}`
  return `int4 g${groupSize} ${scale}${factor}${lookupRounding ? ' look-up' : ''}`
}
