import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  bf16BitsToF32,
  CheckpointError,
  createCheckpoint,
  dequantizeInt4,
  type Int4Tensor,
  openModel,
  openShardedSafetensors,
  parseLlamaConfig,
  type Tensor,
} from '../src/index.js'
import {
  denseArrays,
  filesOf,
  GROUP_SIZE,
  METADATA,
  makeModel,
  makeTensors,
  TINY,
  writeAll,
} from './checkpoint-files.js'
import { temporaryDirectory } from './safetensors-files.js'

const outPath = async () => join(await temporaryDirectory(), 'out')
const json = async (...path: string[]) => JSON.parse(await readFile(join(...path), 'utf8'))

describe('a written checkpoint', () => {
  test('reads back as it was, and leaves nothing beside it', async () => {
    const [source, out, tensors] = [await makeModel(TINY), await outPath(), makeTensors(TINY)]
    await writeAll(out, source, TINY, tensors)
    await using model = await openModel(out)
    for (const group of tensors.values()) {
      for (const [name, tensor] of group) expect(await model.tensor(name), name).toEqual(tensor)
    }
    expect(model.names()).toEqual([...tensors.values()].flatMap((group) => [...group.keys()]))
    expect(await readdir(join(out, '..'))).toEqual(['out'])
  })

  test('holds the arrays that its published layout says, decoded here by that alone', async () => {
    const [source, out, tensors] = [await makeModel(TINY), await outPath(), makeTensors(TINY)]
    await writeAll(out, source, TINY, tensors)
    await using store = await openShardedSafetensors(out)
    let checked = 0
    for (const [name, tensor] of [...tensors.values()].flatMap((group) => [...group])) {
      if (tensor.kind === 'dense' || tensor.lookupRounding) continue
      const [N, K] = tensor.shape
      expect(store.info(`${name}_packed`)).toMatchObject({ dtype: 'i32', shape: [N, K / 8] })
      expect(store.info(`${name}_scale`)).toMatchObject({ dtype: 'bf16', shape: [N, K / GROUP_SIZE] })
      expect(store.info(`${name}_shape`)).toMatchObject({ dtype: 'i64', shape: [2] })
      const words = new DataView((await store.read(`${name}_packed`)).buffer)
      const scales = new DataView((await store.read(`${name}_scale`)).buffer)
      const shape = new DataView((await store.read(`${name}_shape`)).buffer)
      expect([shape.getBigInt64(0, true), shape.getBigInt64(8, true)]).toEqual([BigInt(N), BigInt(K)])
      const decoded = new Float32Array(N * K)
      for (let n = 0; n < N; n++) {
        for (let k = 0; k < K; k++) {
          // Code + 8 at bits 4i of the int32 word of element i, words along K; times σ, a BF16.
          const word = words.getInt32((n * (K / 8) + Math.floor(k / 8)) * 4, true)
          const code = ((word >> (4 * (k % 8))) & 15) - 8
          const bits = scales.getUint16((n * (K / GROUP_SIZE) + Math.floor(k / GROUP_SIZE)) * 2, true)
          decoded[n * K + k] = code * bf16BitsToF32(bits)
        }
      }
      expect(decoded, name).toEqual(dequantizeInt4(tensor))
      checked++
    }
    expect(checked).toBe(2 * 5)
  })

  test('has one shard a group and an index of them', async () => {
    const [source, out] = [await makeModel(TINY), await outPath()]
    await writeAll(out, source, TINY, makeTensors(TINY))
    const { metadata, weight_map: weightMap } = await json(out, 'model.safetensors.index.json')
    expect(weightMap['model.embed_tokens.weight']).toBe('model-00001-of-00004.safetensors')
    expect(weightMap['model.layers.1.self_attn.q_proj.weight_packed']).toBe('model-00003-of-00004.safetensors')
    expect(weightMap['lm_head.weight']).toBe('model-00004-of-00004.safetensors')
    await using store = await openShardedSafetensors(out)
    expect(Object.keys(weightMap).sort()).toEqual(store.names().sort())
    expect(metadata.total_size).toBe(store.names().reduce((sum, name) => sum + store.info(name).bytes, 0))
  })

  test('has the config that vLLM runs as W4A8, and the source’s tokenizer, defaults and licence', async () => {
    const [source, out] = [await makeModel(TINY), await outPath()]
    await writeAll(out, source, TINY, makeTensors(TINY))
    expect(await json(out, 'config.json')).toEqual({
      ...TINY,
      torch_dtype: 'bfloat16',
      quantization_config: {
        quant_method: 'compressed-tensors',
        format: 'pack-quantized',
        quantization_status: 'compressed',
        ignore: ['lm_head', 'model.layers.0.mlp.down_proj', 'model.layers.1.mlp.down_proj'],
        kv_cache_scheme: null,
        config_groups: {
          group_0: {
            targets: ['Linear'],
            weights: {
              num_bits: 4,
              type: 'int',
              symmetric: true,
              strategy: 'group',
              group_size: GROUP_SIZE,
              dynamic: false,
            },
            input_activations: { num_bits: 8, type: 'float', symmetric: true, strategy: 'token', dynamic: true },
          },
        },
      },
    })
    const files = await filesOf(out)
    expect(Object.keys(files)).toEqual([
      'LICENSE.txt',
      'config.json',
      'fireq.json',
      'generation_config.json',
      'model-00001-of-00004.safetensors',
      'model-00002-of-00004.safetensors',
      'model-00003-of-00004.safetensors',
      'model-00004-of-00004.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
    ])
    expect(files['tokenizer.json']).toBe('{"a tokenizer": true}')
  })

  test('says in fireq.json what the arrays don’t', async () => {
    const [source, out] = [await makeModel(TINY), await outPath()]
    await writeAll(out, source, TINY, makeTensors(TINY))
    const metadata = await json(out, 'fireq.json')
    expect(metadata).toMatchObject({ formatVersion: 1, ...METADATA })
    expect(metadata.weights['model.layers.0.self_attn.q_proj.weight']).toEqual({
      scale: 'e4m3',
      tensorScaleExponent: 3,
      lookupRounding: true,
    })
    expect(metadata.weights['model.layers.0.self_attn.k_proj.weight']).toEqual({ scale: 'e4m3' })
    expect(metadata.weights['model.layers.0.self_attn.v_proj.weight']).toEqual({ scale: 'bf16' })
    expect(metadata.weights).not.toHaveProperty('model.layers.0.mlp.down_proj.weight')
    expect(metadata.provenance.notes).toEqual(['embed', 'layer-0', 'layer-1', 'head'].map((key) => ({ key })))
    await using model = await openModel(out)
    expect(model.quantization).toEqual(metadata)
  })

  test('keeps key scales exactly, a layer a line', async () => {
    const [source, out] = [await makeModel(TINY), await outPath()]
    const keyScale = [0, 1].map((layer) => Array.from({ length: 32 }, (_, i) => Math.fround((layer + 1) / (i + 3))))
    await using writer = await createCheckpoint(out, { sourceDir: source, sourceConfig: TINY, identity: 'a' })
    for (const [key, tensors] of makeTensors(TINY)) await writer.writeShard(key, tensors)
    await writer.finish({ ...METADATA, keyScale })
    await using model = await openModel(out)
    expect(model.quantization?.keyScale).toEqual(keyScale)
    expect(await readFile(join(out, 'fireq.json'), 'utf8')).toContain(`[${keyScale[1].join(',')}]\n`)
  })
})

describe('variants', () => {
  const write = async (
    raw: Record<string, unknown>,
    tensors: Map<string, Map<string, Tensor>>,
    activations: 'e4m3' | 'none' = 'none',
  ) => {
    const [sourceDir, out] = [await makeModel(raw), await outPath()]
    await using writer = await createCheckpoint(out, { sourceDir, sourceConfig: raw, identity: 'a' })
    for (const key of writer.keys) await writer.writeShard(key, tensors.get(key)!)
    await writer.finish({ ...METADATA, activations })
    return out
  }

  test('without activations it is plain W4A16', async () => {
    const config = await json(await write(TINY, makeTensors(TINY)), 'config.json')
    expect(config.quantization_config.config_groups.group_0.input_activations).toBeNull()
  })

  test('without INT4 weights the config stays as it is', async () => {
    const out = await write(TINY, makeTensors(TINY, false))
    expect(await json(out, 'config.json')).toEqual(TINY)
    await using model = await openModel(out)
    expect(model.quantization).toMatchObject({ weights: {}, kv: METADATA.kv })
  })

  test('of two group sizes each names its layers', async () => {
    const tensors = makeTensors(TINY)
    const name = 'model.layers.1.mlp.up_proj.weight'
    const other = makeTensors({ ...TINY })
    const up = other.get('layer-1')!.get(name) as Int4Tensor
    const groupScale = {
      dtype: 'bf16',
      data: (up.groupScale.data as Uint16Array).filter((_, g) => g % 2 === 0),
    } as const
    tensors.get('layer-1')!.set(name, { ...up, groupSize: 64, groupScale })
    const out = await write(TINY, tensors)
    const groups = (await json(out, 'config.json')).quantization_config.config_groups
    expect([groups.group_0.weights.group_size, groups.group_1.weights.group_size]).toEqual([32, 64])
    expect(groups.group_1.targets).toEqual(['model.layers.1.mlp.up_proj'])
    expect(groups.group_0.targets).toHaveLength(11)
    await using model = await openModel(out)
    expect(await model.tensor(name)).toMatchObject({ groupSize: 64 })
  })

  test('a tied model stays tied, unless its head brings its own matrix', async () => {
    const raw = { ...TINY, tie_word_embeddings: true }
    const tied = await write(raw, makeTensors(raw))
    expect((await json(tied, 'config.json')).tie_word_embeddings).toBe(true)
    const untied = await write(raw, makeTensors(TINY))
    expect((await json(untied, 'config.json')).tie_word_embeddings).toBe(false)
    await using model = await openModel(untied)
    expect(model.has('lm_head.weight')).toBe(true)
  })

  test('a tensor scale and other channel scales fold where BF16 holds the product', async () => {
    const tensors = makeTensors(TINY)
    const name = 'model.layers.0.self_attn.k_proj.weight'
    const k = tensors.get('layer-0')!.get(name) as Int4Tensor
    const channelScale = Float32Array.from({ length: k.shape[0] }, (_, n) => (8 + (n % 8)) / 2 ** 6)
    tensors.get('layer-0')!.set(name, { ...k, channelScale })
    await using model = await openModel(await write(TINY, tensors))
    expect(model.quantization?.weights[name]).toEqual({ scale: 'bf16' })
    const read = (await model.tensor(name)) as Int4Tensor
    expect(read.channelScale).toBeUndefined()
    expect(dequantizeInt4(read)).toEqual(dequantizeInt4({ ...k, channelScale }))
  })

  test('a quantized source’s quantization_config is replaced', async () => {
    const raw = { ...TINY, quantization_config: { quant_method: 'gptq' } }
    const config = await json(await write(raw, makeTensors(TINY)), 'config.json')
    expect(config.quantization_config.quant_method).toBe('compressed-tensors')
  })
})

describe('one clear error for', () => {
  const layer = () => new Map(makeTensors(TINY).get('layer-0')!)
  const name = 'model.layers.0.self_attn.v_proj.weight'
  const v = layer().get(name) as Int4Tensor
  const f32 = { dtype: 'f32', data: new Float32Array(v.groupScale.data.length).fill(0.1) } as const

  test.each<[string, (tensors: Map<string, Tensor>) => unknown, string]>([
    ['a missing tensor', (t) => t.delete(name), `Expected tensor "${name}" but received none of that name`],
    [
      'a tensor of another group',
      (t) => t.set('model.norm.weight', t.get('model.layers.0.input_layernorm.weight')!),
      'Expected only tensors of this shard but received "model.norm.weight"',
    ],
    [
      'another shape',
      (t) => t.set(name, { ...v, shape: [64, 32] }),
      `tensor "${name}": Expected the shape [32,64] but received [64,32]`,
    ],
    [
      'data that do not fill the shape',
      (t) => t.set(name, { kind: 'dense', dtype: 'bf16', shape: [32, 64], data: new Uint16Array(7) }),
      `tensor "${name}": Expected 2048 elements but received 7`,
    ],
    [
      'too few codes',
      (t) => t.set(name, { ...v, codes: v.codes.subarray(2) }),
      `tensor "${name}": Expected 1024 bytes of codes for the INT4 tensor of shape [32,64] but received 1022`,
    ],
    [
      'an INT4 norm',
      (t) => t.set('model.layers.0.input_layernorm.weight', { ...v, shape: [64] as unknown as [number, number] }),
      'tensor "model.layers.0.input_layernorm.weight": Expected a dense tensor but received INT4',
    ],
    [
      'float32 scales',
      (t) => t.set(name, { ...v, groupScale: f32 }),
      `tensor "${name}": Expected group scales of bf16 or e4m3, which weight_scale holds exactly, but received f32`,
    ],
    [
      'a product that BF16 does not hold',
      (t) => t.set(name, { ...v, channelScale: new Float32Array(32).fill(1 / 3) }),
      `tensor "${name}": Expected a scale that BF16 holds exactly at row 0, group 0 but received`,
    ],
    [
      'look-up rounding with channel scales that are no tensor scale',
      (t) => t.set(name, { ...v, lookupRounding: true, channelScale: new Float32Array(32).fill(3) }),
      `tensor "${name}": Expected one channel scale 2^-i, i from 0 to 14, with look-up rounding but received others`,
    ],
  ])('%s, and the shard can be written again', async (_, change, message) => {
    const [sourceDir, out, tensors] = [await makeModel(TINY), await outPath(), layer()]
    change(tensors)
    await using writer = await createCheckpoint(out, { sourceDir, sourceConfig: TINY, identity: 'a' })
    const failed = writer.writeShard('layer-0', tensors)
    await expect(failed).rejects.toThrow(CheckpointError)
    await expect(failed).rejects.toThrow(`model-00002-of-00004.safetensors: ${message}`)
    await writer.writeShard('layer-0', layer())
    expect(writer.completed()).toEqual(['layer-0'])
  })

  test('a shard that is unknown, or written twice, and finishing without all', async () => {
    const [sourceDir, out] = [await makeModel(TINY), await outPath()]
    await using writer = await createCheckpoint(out, { sourceDir, sourceConfig: TINY, identity: 'a' })
    await expect(writer.writeShard('layer-2', layer())).rejects.toThrow(
      'Expected a shard among embed, layer-0, layer-1, head but received "layer-2"',
    )
    await writer.writeShard('layer-0', layer())
    await expect(writer.writeShard('layer-0', layer())).rejects.toThrow('Expected shard "layer-0" once')
    await expect(writer.finish(METADATA)).rejects.toThrow(
      'Expected every shard to be written but not embed, layer-1, head',
    )
    await writer.close()
    await expect(writer.writeShard('embed', layer())).rejects.toThrow('Expected a writer that is open')
  })

  test('metadata that its reader would refuse; after it, finishing still works', async () => {
    const [sourceDir, out] = [await makeModel(TINY), await outPath()]
    await using writer = await createCheckpoint(out, { sourceDir, sourceConfig: TINY, identity: 'a' })
    for (const [key, tensors] of makeTensors(TINY)) await writer.writeShard(key, tensors)
    await expect(writer.finish({ ...METADATA, keyScale: [[Number.NaN]] })).rejects.toThrow(
      'Expected a finite number other than 0 for keyScale.0.0 in fireq.json but received null',
    )
    await expect(writer.finish({ ...METADATA, keyScale: [[1]] })).rejects.toThrow('Expected 2 layers of keyScale')
    await writer.finish(METADATA)
    await (await openModel(out)).close()
  })

  test('a source config that is not supported, before anything is created', async () => {
    const [sourceDir, out] = [await makeModel(TINY), await outPath()]
    const sourceConfig = { ...TINY, hidden_act: 'gelu' }
    await expect(createCheckpoint(out, { sourceDir, sourceConfig, identity: 'a' })).rejects.toThrow(
      `Expected "silu" for hidden_act in ${join(sourceDir, 'config.json')} but received "gelu"`,
    )
    expect(await readdir(join(out, '..'))).toEqual([])
  })

  test('an output that is there, that is a file, or that is the source', async () => {
    const source = await makeModel(TINY)
    const out = await outPath()
    const create = (path: string, overwrite: boolean) =>
      createCheckpoint(path, { sourceDir: source, sourceConfig: TINY, identity: 'a', overwrite })
    await mkdir(out)
    await writeFile(join(out, 'precious.txt'), 'mine')
    await expect(create(out, false)).rejects.toThrow(`${out}: Expected no directory of that name but it exists`)
    await expect(create(out, true)).rejects.toThrow(
      `${out}: Expected a model to overwrite but received a directory without config.json`,
    )
    await expect(create(join(out, 'precious.txt'), true)).rejects.toThrow('Expected a directory but received a file')
    for (const path of [source, join(source, '..')]) {
      await expect(create(path, true)).rejects.toThrow('Expected an output directory apart from the model at')
    }
    await mkdir(`${out}2.partial`)
    await writeFile(join(`${out}2.partial`, 'thesis.txt'), 'mine')
    await expect(create(`${out}2`, true)).rejects.toThrow(
      'Expected the directory of an unfinished model but received "thesis.txt" in it',
    )
    expect(await readdir(join(out, '..'))).toEqual(['out', 'out2.partial'])
    expect(await filesOf(out)).toEqual({ 'precious.txt': 'mine' })
  })
})

test('an empty output directory is filled, a model is overwritten when asked', async () => {
  const [source, out] = [await makeModel(TINY), await outPath()]
  await mkdir(out)
  await writeAll(out, source, TINY, makeTensors(TINY))
  await writeFile(join(out, 'leftover.txt'), 'of the old model')
  await writeAll(out, source, TINY, makeTensors(TINY, false), { overwrite: true })
  expect(await readdir(out)).not.toContain('leftover.txt')
  expect(parseLlamaConfig(await json(out, 'config.json'), 'config.json').hiddenSize).toBe(64)
  await using model = await openModel(out)
  expect(model.dtype('model.layers.0.self_attn.q_proj.weight')).toBe('bf16')
  expect([...denseArrays(TINY).keys()]).toEqual(model.names())
})
