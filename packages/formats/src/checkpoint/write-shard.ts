import { stat } from 'node:fs/promises'
import { basename } from 'node:path'
import type { ModelTensor } from '../config/llama-tensors.js'
import { foldedScaleBf16, toWeightPacked } from '../int4/compressed.js'
import { MAX_TENSOR_SCALE_EXPONENT } from '../int4/tensor-scale.js'
import type { TensorSpec } from '../safetensors/layout.js'
import { createSafetensors } from '../safetensors/writer.js'
import type { Int4Tensor, Tensor } from '../tensor.js'
import { CheckpointError } from './error.js'
import { type ShardRecord, sha256Of } from './journal.js'
import type { WeightFormat } from './metadata.js'
import { int4Names } from './stored-tensors.js'

interface StoredArray {
  readonly spec: TensorSpec
  readonly data: ArrayBufferView
}

/**
 * Writes the tensors of a group as one safetensors file, which appears when it is complete.
 * @throws CheckpointError naming the first tensor that is missing, isn't of the group, or can't be stored
 */
export async function writeShardFile(
  path: string,
  group: readonly ModelTensor[],
  tensors: ReadonlyMap<string, Tensor>,
): Promise<ShardRecord> {
  checkNames(path, group, tensors)
  const weights: Record<string, { groupSize: number; format: WeightFormat }> = {}
  const arrays = group.flatMap((expected): StoredArray[] => {
    const { name } = expected
    const tensor = tensors.get(name)!
    try {
      checkTensor(expected, tensor)
      if (tensor.kind === 'dense') {
        return [{ spec: { name, dtype: tensor.dtype, shape: tensor.shape }, data: tensor.data }]
      }
      weights[name] = { groupSize: tensor.groupSize, format: weightFormatOf(tensor) }
      return int4Arrays(name, tensor)
    } catch (cause) {
      throw new CheckpointError(path, `tensor "${name}": ${(cause as Error).message}`, { cause })
    }
  })

  // `format` is what Hugging Face's loader wants to see.
  const options = { metadata: { format: 'pt' }, overwrite: true }
  await using file = await createSafetensors(
    path,
    arrays.map(({ spec }) => spec),
    options,
  )
  for (const { spec, data } of arrays) await file.write(spec.name, data)
  await file.finish()
  return {
    file: basename(path),
    bytes: (await stat(path)).size,
    sha256: await sha256Of(path),
    dataBytes: arrays.reduce((sum, { data }) => sum + data.byteLength, 0),
    arrays: arrays.map(({ spec }) => spec.name),
    weights,
  }
}

function checkNames(path: string, group: readonly ModelTensor[], tensors: ReadonlyMap<string, Tensor>): void {
  const missing = group.find(({ name }) => !tensors.has(name))
  if (missing) throw new CheckpointError(path, `Expected tensor "${missing.name}" but received none of that name`)
  const names = new Set(group.map(({ name }) => name))
  const unknown = [...tensors.keys()].find((name) => !names.has(name))
  if (unknown !== undefined) {
    throw new CheckpointError(path, `Expected only tensors of this shard but received "${unknown}"`)
  }
}

function checkTensor({ shape, quantizable }: ModelTensor, tensor: Tensor): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((dim, axis) => dim !== shape[axis])) {
    throw new RangeError(`Expected the shape [${shape}] but received [${tensor.shape}]`)
  }
  if (tensor.kind === 'int4' && !quantizable) throw new RangeError('Expected a dense tensor but received INT4')
  const elements = shape.reduce((product, dim) => product * dim, 1)
  if (tensor.kind === 'dense' && tensor.data.length !== elements) {
    throw new RangeError(`Expected ${elements} elements but received ${tensor.data.length}`)
  }
}

function int4Arrays(name: string, tensor: Int4Tensor): StoredArray[] {
  const [N, K] = tensor.shape
  const names = int4Names(name)
  return [
    { spec: { name: names.packed, dtype: 'i32', shape: [N, K / 8] }, data: toWeightPacked(tensor) },
    { spec: { name: names.scale, dtype: 'bf16', shape: [N, K / tensor.groupSize] }, data: foldedScaleBf16(tensor) },
    { spec: { name: names.shape, dtype: 'i64', shape: [2] }, data: BigInt64Array.of(BigInt(N), BigInt(K)) },
  ]
}

/**
 * What `weight_scale` won't say of a tensor. A channel scale that isn't one tensor scale stays folded: the same values, but
 * no longer two factors, which look-up rounding would need.
 */
function weightFormatOf({ groupScale, channelScale, lookupRounding = false }: Int4Tensor): WeightFormat {
  if (groupScale.dtype === 'f32') {
    throw new RangeError('Expected group scales of bf16 or e4m3, which weight_scale holds exactly, but received f32')
  }
  const lookup = lookupRounding && { lookupRounding }
  if (!channelScale) return { scale: groupScale.dtype, ...lookup }
  const exponent = -Math.log2(channelScale[0])
  const isTensorScale = Number.isInteger(exponent) && exponent >= 0 && exponent <= MAX_TENSOR_SCALE_EXPONENT
  if (isTensorScale && channelScale.every((scale) => scale === channelScale[0])) {
    return { scale: groupScale.dtype, ...(exponent > 0 && { tensorScaleExponent: exponent }), ...lookup }
  }
  if (lookupRounding) {
    const expected = `one channel scale 2^-i, i from 0 to ${MAX_TENSOR_SCALE_EXPONENT}, with look-up rounding`
    throw new RangeError(`Expected ${expected} but received others`)
  }
  return { scale: 'bf16' }
}
