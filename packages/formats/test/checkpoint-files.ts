import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  createCheckpoint,
  createSafetensors,
  encodeBf16,
  type FireqMetadata,
  type ModelTensor,
  modelTensors,
  parseLlamaConfig,
  quantizeInt4,
  type StoredDType,
  type Tensor,
  type TensorSpec,
} from '../src/index.js'
import { temporaryDirectory } from './safetensors-files.js'

export type Raw = Record<string, unknown>

/** A Llama small enough to be written hundreds of times. */
export const TINY: Readonly<Raw> = {
  architectures: ['LlamaForCausalLM'],
  bos_token_id: 0,
  eos_token_id: 1,
  hidden_size: 64,
  intermediate_size: 96,
  max_position_embeddings: 128,
  model_type: 'llama',
  num_attention_heads: 4,
  num_hidden_layers: 2,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
  torch_dtype: 'float16',
  vocab_size: 32,
}

export const GROUP_SIZE = 32

export const METADATA: Omit<FireqMetadata, 'formatVersion' | 'weights'> = {
  activations: 'e4m3',
  queries: 'none',
  probabilities: 'e4m3',
  kv: { dtype: 'int4', symmetric: false, scale: 'bf16' },
  recipe: { name: 'test' },
}

/** A small generator of reproducible numbers, mulberry32. */
export function random(seed: number): () => number {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** As many numbers from −0.1 to 0.1 as a shape has elements. */
function values(shape: readonly number[], seed: number): Float32Array {
  const next = random(seed)
  return new Float32Array(shape.reduce((product, dim) => product * dim, 1)).map(() => (next() - 0.5) / 5)
}

function dense({ shape }: ModelTensor, seed: number): Tensor {
  return { kind: 'dense', dtype: 'bf16', shape, data: encodeBf16(values(shape, seed)) }
}

/** E4M3 scales with a tensor scale and with look-up rounding, E4M3 scales, BF16 scales, BF16: every layer has them all. */
function quantized(tensor: ModelTensor, seed: number): Tensor {
  const shape = tensor.shape as [number, number]
  const weights = values(shape, seed)
  if (tensor.name.includes('q_proj')) {
    return quantizeInt4(weights, shape, { groupSize: 32, scale: 'e4m3', tensorScale: 3, lookupRounding: true })
  }
  if (tensor.name.includes('k_proj')) return quantizeInt4(weights, shape, { groupSize: 32, scale: 'e4m3' })
  if (tensor.name.includes('down_proj')) return dense(tensor, seed)
  return quantizeInt4(weights, shape, { groupSize: 32, scale: 'bf16' })
}

/** Every tensor of a model by shard, quantized or not; always the same. */
export function makeTensors(raw: Raw, quantize = true): Map<string, Map<string, Tensor>> {
  let seed = 0
  const make = (tensor: ModelTensor): [string, Tensor] => [
    tensor.name,
    quantize && tensor.quantizable ? quantized(tensor, ++seed) : dense(tensor, ++seed),
  ]
  const groups = modelTensors(parseLlamaConfig(raw, 'test'))
  return new Map(groups.map(({ key, tensors }) => [key, new Map(tensors.map(make))]))
}

/** Arrays as they lie in a file. */
export type Arrays = Map<string, { dtype: StoredDType; shape: readonly number[]; data: ArrayBufferView }>

export function denseArrays(raw: Raw): Arrays {
  const arrays: Arrays = new Map()
  for (const group of makeTensors(raw, false).values()) {
    for (const [name, tensor] of group) {
      if (tensor.kind === 'dense') arrays.set(name, { dtype: tensor.dtype, shape: tensor.shape, data: tensor.data })
    }
  }
  return arrays
}

/** Writes a model directory as Hugging Face has it, from arrays that needn't fit its config. */
export async function makeModel(raw: Raw, arrays: Arrays = denseArrays(raw)): Promise<string> {
  const dir = join(await temporaryDirectory(), 'source')
  await mkdir(dir)
  await writeFile(join(dir, 'config.json'), JSON.stringify(raw))
  await writeFile(join(dir, 'tokenizer.json'), '{"a tokenizer": true}')
  await writeFile(join(dir, 'generation_config.json'), '{"eos_token_id": 1}')
  await writeFile(join(dir, 'LICENSE.txt'), 'a licence')
  await writeFile(join(dir, 'notes.txt'), 'not part of the model')
  const specs: TensorSpec[] = [...arrays].map(([name, { dtype, shape }]) => ({ name, dtype, shape }))
  await using file = await createSafetensors(join(dir, 'model.safetensors'), specs)
  for (const [name, { data }] of arrays) await file.write(name, data)
  await file.finish()
  return dir
}

/** Writes what is missing of a quantized model, as the quantizer does. */
export async function writeAll(
  outDir: string,
  sourceDir: string,
  raw: Raw,
  tensors: ReadonlyMap<string, ReadonlyMap<string, Tensor>>,
  options: { identity?: string; overwrite?: boolean } = {},
): Promise<void> {
  const { identity = 'a', overwrite = false } = options
  const writer = await createCheckpoint(outDir, { sourceDir, sourceConfig: raw, identity, overwrite })
  try {
    const completed = writer.completed()
    for (const key of writer.keys) {
      if (!completed.includes(key)) await writer.writeShard(key, tensors.get(key)!, { key })
    }
    const notes = writer.keys.map((key) => writer.note(key))
    await writer.finish({ ...METADATA, provenance: { notes } })
  } finally {
    await writer.close()
  }
}

/** Every file of a directory, by name. */
export async function filesOf(dir: string): Promise<Record<string, string>> {
  const names = (await readdir(dir)).sort()
  return Object.fromEntries(
    await Promise.all(names.map(async (name) => [name, (await readFile(join(dir, name))).toString('latin1')])),
  )
}
