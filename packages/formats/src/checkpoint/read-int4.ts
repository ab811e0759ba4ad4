import { fromCompressedTensors } from '../int4/compressed.js'
import { decodeF16 } from '../numbers/f16.js'
import type { TensorStore } from '../safetensors/store.js'
import type { Int4Tensor } from '../tensor.js'
import { CheckpointError } from './error.js'
import type { WeightFormat } from './metadata.js'
import { int4Names, type StoredInt4 } from './stored-tensors.js'

/**
 * Assembles an INT4 weight, or some of its rows, from compressed-tensors' arrays.
 * @throws CheckpointError naming the file and the tensor, where its scales don't fit what `format` says
 */
export async function readInt4(
  store: TensorStore,
  name: string,
  { shape: [N, K], groupSize, scaleDType }: StoredInt4,
  format: WeightFormat,
  rows: readonly [number, number] = [0, N],
): Promise<Int4Tensor> {
  const names = int4Names(name)
  const [start, end] = rows
  const count = end - start
  const readRows = async (array: string) => {
    const rowBytes = store.info(array).bytes / N
    return (await store.readRange(array, start * rowBytes, end * rowBytes)).buffer as ArrayBuffer
  }
  const [packed, scales] = [await readRows(names.packed), await readRows(names.scale)]
  if (scaleDType !== 'bf16') {
    // Another tool's: F16 and F32 scales are kept as they are, in float32.
    const values = scaleDType === 'f16' ? decodeF16(new Uint16Array(scales)) : new Float32Array(scales)
    const groupScale = { dtype: 'f32', data: values } as const
    return { kind: 'int4', shape: [count, K], groupSize, codes: new Uint8Array(packed), groupScale }
  }
  try {
    return fromCompressedTensors({
      weightPacked: new Int32Array(packed),
      weightScale: new Uint16Array(scales),
      shape: [count, K],
      groupSize,
      tensorScaleExponent: format.tensorScaleExponent,
      scaleDType: format.scale,
      lookupRounding: format.lookupRounding,
    })
  } catch (cause) {
    throw new CheckpointError(store.fileOf(names.scale), `tensor "${names.scale}": ${(cause as Error).message}`, {
      cause,
    })
  }
}
