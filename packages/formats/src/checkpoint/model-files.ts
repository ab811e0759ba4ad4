import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ModelTensor } from '../config/llama-tensors.js'
import { writeFileAtomic } from '../files/atomic.js'
import { INDEX_FILE } from '../safetensors/sharded.js'
import type { ShardRecord } from './journal.js'
import { type FireqMetadata, formatFireqMetadata, METADATA_FILE, type WeightFormat } from './metadata.js'
import { quantizationConfigOf } from './quantization-config.js'

/** What is copied from the source, where it has it: the tokenizer, generation defaults, and the model's licence. */
const COPIED =
  /^(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template|generation_config)\.(json|model|jinja)$|^merges\.txt$|^(LICENSE|NOTICE|USE_POLICY)(\.txt|\.md)?$/i

interface ModelFiles {
  readonly sourceDir: string
  readonly sourceConfig: Readonly<Record<string, unknown>>
  /** Every tensor of the model in order. */
  readonly tensors: readonly ModelTensor[]
  /** In order. */
  readonly shards: readonly ShardRecord[]
  readonly metadata: Omit<FireqMetadata, 'formatVersion' | 'weights'>
}

/** Writes all that a model directory has beside its shards. The same input gives the same bytes. */
export async function writeModelFiles(directory: string, files: ModelFiles): Promise<void> {
  const write = (name: string, data: string | Uint8Array) => writeFileAtomic(join(directory, name), data, true)
  const formats: Record<string, WeightFormat> = {}
  for (const shard of files.shards) {
    for (const [name, { format }] of Object.entries(shard.weights)) formats[name] = format
  }
  await write(METADATA_FILE, formatFireqMetadata({ formatVersion: 1, ...files.metadata, weights: formats }))
  for (const name of (await readdir(files.sourceDir)).filter((name) => COPIED.test(name)).sort()) {
    const path = join(files.sourceDir, name)
    if ((await stat(path)).isFile()) await write(name, await readFile(path))
  }
  await write(INDEX_FILE, json(indexOf(files.shards)))
  await write('config.json', json(configOf(files)))
}

function indexOf(shards: readonly ShardRecord[]): unknown {
  const weightMap = shards.flatMap(({ file, arrays }) => arrays.map((name) => [name, file]))
  return {
    metadata: { total_size: shards.reduce((sum, { dataBytes }) => sum + dataBytes, 0) },
    weight_map: Object.fromEntries(weightMap),
  }
}

/** The source's config, with what has become of the weights. */
function configOf({ sourceConfig, tensors, shards, metadata }: ModelFiles): Record<string, unknown> {
  const config: Record<string, unknown> = { ...sourceConfig }
  delete config.quantization_config
  const arrays = new Set(shards.flatMap((shard) => shard.arrays))
  if (arrays.has('lm_head.weight')) config.tie_word_embeddings = false

  const groupSizes = new Map<string, number>()
  for (const { weights } of shards) {
    for (const [name, { groupSize }] of Object.entries(weights)) groupSizes.set(moduleOf(name), groupSize)
  }
  if (groupSizes.size === 0) return config
  const kept = tensors
    .filter(({ name, quantizable }) => quantizable && arrays.has(name))
    .map(({ name }) => moduleOf(name))
  // The scales are BF16, and engines that run this format want the rest to be, too.
  config['dtype' in config ? 'dtype' : 'torch_dtype'] = 'bfloat16'
  return { ...config, quantization_config: quantizationConfigOf(metadata.activations, groupSizes, kept) }
}

/** The linear layer a weight belongs to. */
function moduleOf(name: string): string {
  return name.replace(/\.weight$/, '')
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`
}
