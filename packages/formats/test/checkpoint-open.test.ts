import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import {
  bf16BitsToF32,
  decodeScales,
  dequantizeInt4,
  encodeF16,
  type Int4Tensor,
  openModel,
  openShardedSafetensors,
  toFloat32,
} from '../src/index.js'
import {
  type Arrays,
  denseArrays,
  makeModel,
  makeTensors,
  type Raw,
  random,
  TINY,
  writeAll,
} from './checkpoint-files.js'
import { temporaryDirectory } from './safetensors-files.js'

const V = 'model.layers.0.self_attn.v_proj.weight'
const NORM = 'model.layers.1.input_layernorm.weight'

describe('the stand-in', () => {
  const dir = fileURLToPath(new URL('../../../models/standin', import.meta.url))

  test('opens', async () => {
    await using model = await openModel(dir)
    expect(model.config).toMatchObject({ hiddenSize: 256, headDim: 128, numKeyValueHeads: 2, tieWordEmbeddings: true })
    expect(model.rawConfig.model_type).toBe('llama')
    expect(model.quantization).toBeUndefined()
    expect(model.names()).toHaveLength(2 + 8 * 9)
    expect(model.has('lm_head.weight')).toBe(false)
    expect(model.shape('model.layers.0.self_attn.q_proj.weight')).toEqual([512, 256])
  })

  test('is read whole or in rows', async () => {
    await using model = await openModel(dir)
    const whole = await model.tensor('model.embed_tokens.weight')
    expect(whole).toMatchObject({ kind: 'dense', dtype: 'bf16', shape: [4096, 256] })
    const rows = await model.tensor('model.embed_tokens.weight', { rows: [7, 9] })
    expect(rows.shape).toEqual([2, 256])
    expect(toFloat32(rows)).toEqual(toFloat32(whole).slice(7 * 256, 9 * 256))
    for (const bad of [
      [-1, 2],
      [3, 3],
      [4000, 4097],
      [0.5, 2],
    ] as const) {
      await expect(model.tensor('model.embed_tokens.weight', { rows: bad })).rejects.toThrow(
        `${dir}: Expected at least one row within 0…4096 of tensor "model.embed_tokens.weight" but received ${bad[0]}…${bad[1]}`,
      )
    }
  })

  test('has no tensor of another name', async () => {
    await using model = await openModel(dir)
    await expect(model.tensor('lm_head.weight')).rejects.toThrow(
      'Expected a tensor of the model but received "lm_head.weight"',
    )
    expect(() => model.shape('toString')).toThrow('Expected a tensor of the model but received "toString"')
  })
})

describe('a plain model', () => {
  const rawArray = (shape: number[], dtype: 'f16' | 'f32' | 'f64' | 'i32' = 'f32') => {
    const elements = shape.reduce((product, dim) => product * dim, 1)
    return { dtype, shape, data: new Uint8Array(elements * { f16: 2, f32: 4, f64: 8, i32: 4 }[dtype]) }
  }

  test('may have tensors that its config makes superfluous, and any float', async () => {
    const raw = { ...TINY, tie_word_embeddings: true }
    const arrays = denseArrays(TINY)
    arrays.set('model.layers.0.self_attn.rotary_emb.inv_freq', rawArray([8]))
    arrays.set(NORM, rawArray([64], 'f16'))
    arrays.set(V, rawArray([32, 64], 'f32'))
    await using model = await openModel(await makeModel(raw, arrays))
    expect(model.names()).toEqual([...denseArrays(raw).keys()])
    expect([model.dtype(NORM), model.dtype(V)]).toEqual(['f16', 'f32'])
  })

  test.each<[string, (arrays: Arrays) => unknown, string]>([
    ['a missing tensor', (a) => a.delete(NORM), `Expected tensor "${NORM}" but received none of that name`],
    ['a missing head', (a) => a.delete('lm_head.weight'), 'Expected tensor "lm_head.weight" but received none'],
    [
      'another shape',
      (a) => a.set(V, rawArray([64, 32])),
      `Expected the shape [32,64] for tensor "${V}" but received [64,32]`,
    ],
    [
      'another rank',
      (a) => a.set(NORM, rawArray([64, 1])),
      `Expected the shape [64] for tensor "${NORM}" but received [64,1]`,
    ],
    [
      'a float64',
      (a) => a.set(V, rawArray([32, 64], 'f64')),
      `Expected the dtype bf16 or f16 or f32 for tensor "${V}" but received f64`,
    ],
    [
      'an integer',
      (a) => a.set(NORM, rawArray([64], 'i32')),
      `Expected the dtype bf16 or f16 or f32 for tensor "${NORM}" but received i32`,
    ],
    [
      'a bias that the config does not have',
      (a) => a.set('model.layers.0.self_attn.q_proj.bias', rawArray([64])),
      'Expected only tensors that config.json implies but received "model.layers.0.self_attn.q_proj.bias"',
    ],
    [
      'a layer too many',
      (a) => a.set('model.layers.2.input_layernorm.weight', rawArray([64])),
      'Expected only tensors that config.json implies but received "model.layers.2.input_layernorm.weight"',
    ],
  ])('%s is one error that names file and tensor', async (_, change, message) => {
    const arrays = denseArrays(TINY)
    change(arrays)
    const dir = await makeModel(TINY, arrays)
    await expect(openModel(dir)).rejects.toThrow(`${join(dir, 'model.safetensors')}: ${message}`)
  })

  test.each<[string, string | Uint8Array, string]>([
    ['NaN', '{"model_type": "llama", "rms_norm_eps": NaN}', 'Expected JSON in PATH but received: '],
    ['half a file', '{"model_type": "lla', 'Expected JSON in PATH but received: '],
    ['nothing', '', 'Expected JSON in PATH but received: '],
    [
      'other bytes',
      Uint8Array.of(0x7b, 0xff, 0x7d),
      'Expected a readable UTF-8 file at PATH but received: The encoded data was not valid',
    ],
    [
      'another family',
      '{"model_type": "gpt2"}',
      'Expected a supported model family (llama) for model_type in PATH but received "gpt2"',
    ],
    ['a list', '[1]', 'Expected a supported model family (llama) for model_type in PATH but received nothing'],
  ])('a config.json of %s is one error that names it', async (_, content, message) => {
    const dir = await makeModel(TINY)
    const path = join(dir, 'config.json')
    await writeFile(path, content)
    await expect(openModel(dir)).rejects.toThrow(message.replace('PATH', path))
  })

  test('a directory without config or weights, or none', async () => {
    const dir = await temporaryDirectory()
    const message = 'Expected a model directory but received one without config.json, or none'
    for (const path of [dir, join(dir, 'none')]) await expect(openModel(path)).rejects.toThrow(`${path}: ${message}`)
    await writeFile(join(dir, 'config.json'), JSON.stringify(TINY))
    await expect(openModel(dir)).rejects.toThrow(`${dir}: Expected model.safetensors or model.safetensors.index.json`)
  })
})

interface Files {
  config: Raw
  metadata: Raw | undefined
  arrays: Arrays
}

let written: Promise<Files> | undefined

/** The parts of a quantized model, to be changed and put together again in one file. */
async function quantizedParts(): Promise<Files> {
  written ??= writeParts()
  const { config, metadata, arrays } = await written
  return { ...structuredClone({ config, metadata }), arrays: new Map(arrays) }
}

async function writeParts(): Promise<Files> {
  const [source, out] = [await makeModel(TINY), join(await temporaryDirectory(), 'out')]
  await writeAll(out, source, TINY, makeTensors(TINY))
  const json = async (name: string) => JSON.parse(await readFile(join(out, name), 'utf8')) as Raw
  const arrays: Arrays = new Map()
  await using store = await openShardedSafetensors(out)
  for (const name of store.names()) {
    const { dtype, shape } = store.info(name)
    arrays.set(name, { dtype, shape, data: await store.read(name) })
  }
  return { config: await json('config.json'), metadata: await json('fireq.json'), arrays }
}

async function assemble({ config, metadata, arrays }: Files): Promise<string> {
  const dir = await makeModel(config, arrays)
  if (metadata) await writeFile(join(dir, 'fireq.json'), JSON.stringify(metadata))
  return dir
}

/** `quantization_config` and its parts, to be changed in place. */
function partsOf({ config }: Files) {
  const quantization = config.quantization_config as Raw
  const group = (quantization.config_groups as Record<string, Raw>).group_0
  return { quantization, group, weights: group.weights as Raw }
}

describe('a quantized model', () => {
  test.each<[string, (files: Files) => unknown, string]>([
    [
      'another method',
      (f) => Object.assign(partsOf(f).quantization, { quant_method: 'gptq' }),
      'Expected "compressed-tensors" for quantization_config.quant_method in DIR/config.json but received "gptq"',
    ],
    [
      'another format',
      (f) => Object.assign(partsOf(f).quantization, { format: 'int-quantized' }),
      'Expected "pack-quantized" for quantization_config.format in DIR/config.json but received "int-quantized"',
    ],
    [
      'a KV cache scheme',
      (f) => Object.assign(partsOf(f).quantization, { kv_cache_scheme: { num_bits: 8 } }),
      'Expected null for quantization_config.kv_cache_scheme in DIR/config.json but received {"num_bits":8}',
    ],
    [
      'a transform',
      (f) => Object.assign(partsOf(f).quantization, { transform_config: { config_groups: {} } }),
      'Expected null for quantization_config.transform_config in DIR/config.json but received {"config_groups":{}}',
    ],
    [
      'no groups',
      (f) => Object.assign(partsOf(f).quantization, { config_groups: {} }),
      'Expected at least one group for quantization_config.config_groups in DIR/config.json but received {}',
    ],
    [
      'asymmetric weights',
      (f) => Object.assign(partsOf(f).weights, { symmetric: false }),
      'Expected true for quantization_config.config_groups.group_0.weights.symmetric in DIR/config.json but received false',
    ],
    [
      'eight bits',
      (f) => Object.assign(partsOf(f).weights, { num_bits: 8 }),
      'Expected 4 for quantization_config.config_groups.group_0.weights.num_bits in DIR/config.json but received 8',
    ],
    [
      'scales by channel',
      (f) => Object.assign(partsOf(f).weights, { strategy: 'channel' }),
      'Expected "group" for quantization_config.config_groups.group_0.weights.strategy in DIR/config.json but received "channel"',
    ],
    [
      'activation reordering',
      (f) => Object.assign(partsOf(f).weights, { actorder: 'group' }),
      'Expected null or false or "static" or "weight" for quantization_config.config_groups.group_0.weights.actorder in DIR/config.json but received "group"',
    ],
    [
      'integer activations',
      (f) => Object.assign(partsOf(f).group.input_activations as Raw, { type: 'int' }),
      'Expected "float" for quantization_config.config_groups.group_0.input_activations.type in DIR/config.json but received "int"',
    ],
    [
      'groups that disagree about activations',
      (f) => {
        const { quantization, group } = partsOf(f)
        Object.assign(quantization.config_groups as Raw, { group_1: { ...group, input_activations: null } })
      },
      'Expected the same as in group_0 for quantization_config.config_groups.group_1.input_activations in DIR/config.json but received null',
    ],
    [
      'zero points',
      (f) => f.arrays.set(`${V}_zero_point`, { dtype: 'i32', shape: [1], data: new Int32Array(1) }),
      `DIR/model.safetensors: Expected a symmetric weight, without zero points, for tensor "${V}" but received "${V}_zero_point"`,
    ],
    [
      'a group index',
      (f) => f.arrays.set(`${V}_g_idx`, { dtype: 'i32', shape: [1], data: new Int32Array(1) }),
      `DIR/model.safetensors: Expected a weight without activation reordering for tensor "${V}" but received "${V}_g_idx"`,
    ],
    [
      'packed weights that the config does not mention',
      (f) => delete f.config.quantization_config,
      'DIR/config.json: Expected a quantization_config for tensor "model.layers.0.self_attn.q_proj.weight_packed" but received none',
    ],
    [
      'no packed codes',
      (f) => f.arrays.delete(`${V}_packed`),
      `DIR/model.safetensors: Expected tensor "${V}" but received none`,
    ],
    [
      'no scales',
      (f) => f.arrays.delete(`${V}_scale`),
      `DIR/model.safetensors: Expected tensor "${V}_scale" but received none`,
    ],
    [
      'no shape',
      (f) => f.arrays.delete(`${V}_shape`),
      `DIR/model.safetensors: Expected tensor "${V}_shape" but received none`,
    ],
    [
      'a weight that is there twice',
      (f) => f.arrays.set(V, { dtype: 'f16', shape: [32, 64], data: new Uint16Array(32 * 64) }),
      `DIR/model.safetensors: Expected tensor "${V}" once but received it as "${V}_packed" too`,
    ],
    [
      'an INT4 head',
      (f) => {
        f.arrays.delete('lm_head.weight')
        f.arrays.set('lm_head.weight_packed', { dtype: 'i32', shape: [32, 8], data: new Int32Array(32 * 8) })
      },
      'DIR/model.safetensors: Expected tensor "lm_head.weight" but received none',
    ],
    [
      'codes of another shape',
      (f) => f.arrays.set(`${V}_packed`, { dtype: 'i32', shape: [64, 4], data: new Int32Array(32 * 8) }),
      `DIR/model.safetensors: Expected the shape [32,8] for tensor "${V}_packed" but received [64,4]`,
    ],
    [
      'codes of another type',
      (f) => f.arrays.set(`${V}_packed`, { dtype: 'u8', shape: [32, 32], data: new Uint8Array(32 * 32) }),
      `DIR/model.safetensors: Expected the dtype i32 for tensor "${V}_packed" but received u8`,
    ],
    [
      'a shape that says something else',
      (f) => f.arrays.set(`${V}_shape`, { dtype: 'i64', shape: [2], data: BigInt64Array.of(-32n, 64n) }),
      `DIR/model.safetensors: Expected [32,64] for the values of tensor "${V}_shape" but received [-32,64]`,
    ],
    [
      'scales that do not divide a row',
      (f) => f.arrays.set(`${V}_scale`, { dtype: 'bf16', shape: [32, 3], data: new Uint16Array(96) }),
      `DIR/model.safetensors: Expected the shape [32,G] with groups of an even size K/G, K=64, for tensor "${V}_scale" but received [32,3]`,
    ],
    [
      'no scales at all in a row',
      (f) => f.arrays.set(`${V}_scale`, { dtype: 'bf16', shape: [32, 0], data: new Uint16Array(0) }),
      `DIR/model.safetensors: Expected the shape [32,G] with groups of an even size K/G, K=64, for tensor "${V}_scale" but received [32,0]`,
    ],
    [
      'groups that the config does not mention',
      (f) => f.arrays.set(`${V}_scale`, { dtype: 'bf16', shape: [32, 1], data: new Uint16Array(32) }),
      `DIR/model.safetensors: Expected groups of 32, as config.json says, for tensor "${V}_scale" but received 64`,
    ],
    [
      'scales of another type beside a fireq.json',
      (f) => f.arrays.set(`${V}_scale`, { dtype: 'f16', shape: [32, 2], data: new Uint16Array(64) }),
      `DIR/model.safetensors: Expected the dtype bf16 for tensor "${V}_scale" but received f16`,
    ],
    [
      'a fireq.json of the future',
      (f) => Object.assign(f.metadata!, { formatVersion: 2 }),
      'Expected 1 for formatVersion in DIR/fireq.json but received 2',
    ],
    [
      'a fireq.json with an unknown field',
      (f) => Object.assign(f.metadata!, { rotations: true }),
      'Expected no field rotations in DIR/fireq.json: its meaning is unknown',
    ],
    [
      'another KV cache',
      (f) => Object.assign(f.metadata!, { kv: { dtype: 'int2' } }),
      'Expected an object whose dtype is "f32", "bf16" or "int4" for kv.dtype in DIR/fireq.json but received "int2"',
    ],
    [
      'another scale type in fireq.json',
      (f) => Object.assign((f.metadata!.weights as Raw)[V] as Raw, { scale: 'f32' }),
      `Expected "bf16" or "e4m3" for weights.${V}.scale in DIR/fireq.json but received "f32"`,
    ],
    [
      'an exponent that is too large',
      (f) => Object.assign((f.metadata!.weights as Raw)[V] as Raw, { tensorScaleExponent: 15 }),
      `Expected an integer from 0 to 14 for weights.${V}.tensorScaleExponent in DIR/fireq.json but received 15`,
    ],
    [
      'a weight that fireq.json forgets',
      (f) => delete (f.metadata!.weights as Raw)[V],
      `DIR/fireq.json: Expected an entry of weights for tensor "${V}" but received none`,
    ],
    [
      'a weight that only fireq.json has',
      (f) => Object.assign(f.metadata!.weights as Raw, { [NORM]: { scale: 'bf16' } }),
      `DIR/fireq.json: Expected only INT4 tensors of the model in weights but received "${NORM}"`,
    ],
    [
      'a fireq.json and a config.json that disagree',
      (f) => Object.assign(f.metadata!, { activations: 'none' }),
      'DIR/fireq.json: Expected e4m3 for activations, as config.json says, but received none',
    ],
    [
      'key scales for another number of layers',
      (f) => Object.assign(f.metadata!, { keyScale: [[1]] }),
      'DIR/fireq.json: Expected 2 layers of keyScale but received 1',
    ],
    [
      'key scales for another number of channels',
      (f) => Object.assign(f.metadata!, { keyScale: [Array(32).fill(1), [1, 2]] }),
      'DIR/fireq.json: Expected 32 numbers in keyScale.1 but received 2',
    ],
    [
      'a key scale of 0',
      (f) => Object.assign(f.metadata!, { keyScale: [[1, 0]] }),
      'Expected a finite number other than 0 for keyScale.0.1 in DIR/fireq.json but received 0',
    ],
  ])('with %s is one error', async (_, change, message) => {
    const files = await quantizedParts()
    change(files)
    const dir = await assemble(files)
    const error = await openModel(dir).then(
      () => undefined,
      (error: Error) => error,
    )
    expect(error?.message.replaceAll(dir, 'DIR')).toContain(message)
  })

  test('whose scales are not what fireq.json says is one error when they are read', async () => {
    const files = await quantizedParts()
    Object.assign((files.metadata!.weights as Raw)[V] as Raw, { scale: 'e4m3' })
    const dir = await assemble(files)
    await using model = await openModel(dir)
    await expect(model.tensor(V)).rejects.toThrow(
      `${join(dir, 'model.safetensors')}: tensor "${V}_scale": Expected a finite scale that e4m3 holds exactly at row 0, group 0`,
    )
  })

  test('is read in rows', async () => {
    await using model = await openModel(await assemble(await quantizedParts()))
    for (const name of [V, 'model.layers.0.self_attn.q_proj.weight']) {
      const whole = (await model.tensor(name)) as Int4Tensor
      const rows = (await model.tensor(name, { rows: [5, 12] })) as Int4Tensor
      expect(rows.shape).toEqual([7, 64])
      expect(dequantizeInt4(rows)).toEqual(dequantizeInt4(whole).slice(5 * 64, 12 * 64))
    }
  })
})

describe("another tool's checkpoint, without fireq.json", () => {
  /** Random codes and scales, and their values by the format's own definition. */
  function foreign(scaleDType: 'bf16' | 'f16' | 'f32') {
    const next = random(7)
    const arrays = denseArrays(TINY)
    const words = Int32Array.from({ length: 32 * 8 }, () => (next() * 2 ** 32) | 0)
    const scales = Float32Array.from({ length: 32 * 2 }, () => bf16BitsToF32(0x3c00 + Math.floor(next() * 255)))
    const data = {
      bf16: Uint16Array.from(new Uint32Array(scales.buffer), (bits) => bits >>> 16),
      f16: encodeF16(scales),
      f32: scales,
    }[scaleDType]
    arrays.delete(V)
    arrays.set(`${V}_packed`, { dtype: 'i32', shape: [32, 8], data: words })
    arrays.set(`${V}_scale`, { dtype: scaleDType, shape: [32, 2], data })
    arrays.set(`${V}_shape`, { dtype: 'i64', shape: [2], data: BigInt64Array.of(32n, 64n) })
    const values = Float32Array.from({ length: 32 * 64 }, (_, i) => {
      const code = ((words[i >> 3] >>> (4 * (i & 7))) & 15) - 8
      return code * scales[Math.floor(i / 32)]
    })
    return { arrays, values }
  }

  /** As llm-compressor 0.8 writes it for W4A16. */
  const config = {
    ...TINY,
    quantization_config: {
      config_groups: {
        group_0: {
          format: 'pack-quantized',
          input_activations: null,
          output_activations: null,
          targets: ['Linear'],
          weights: {
            actorder: 'static',
            block_structure: null,
            dynamic: false,
            group_size: 32,
            num_bits: 4,
            observer: 'minmax',
            observer_kwargs: {},
            strategy: 'group',
            symmetric: true,
            type: 'int',
          },
        },
      },
      format: 'pack-quantized',
      global_compression_ratio: null,
      ignore: ['lm_head'],
      kv_cache_scheme: null,
      quant_method: 'compressed-tensors',
      quantization_status: 'compressed',
      sparsity_config: {},
      transform_config: {},
      version: '0.12.2',
    },
  }

  test.each(['bf16', 'f16', 'f32'] as const)('opens with scales of %s', async (scaleDType) => {
    const { arrays, values } = foreign(scaleDType)
    await using model = await openModel(await makeModel(config, arrays))
    const tensor = (await model.tensor(V)) as Int4Tensor
    expect(dequantizeInt4(tensor)).toEqual(values)
    expect(decodeScales(tensor.groupScale)).toHaveLength(64)
    const rows = (await model.tensor(V, { rows: [30, 32] })) as Int4Tensor
    expect(dequantizeInt4(rows)).toEqual(values.slice(30 * 64))
    expect(model.quantization).toEqual({
      formatVersion: 1,
      activations: 'none',
      queries: 'none',
      probabilities: 'f32',
      kv: { dtype: 'bf16' },
      weights: { [V]: { scale: scaleDType === 'bf16' ? 'bf16' : 'f32' } },
    })
  })
})

describe('shards', () => {
  async function sharded(change: (index: Record<string, string>, dir: string) => unknown): Promise<string> {
    const [source, out] = [await makeModel(TINY), join(await temporaryDirectory(), 'out')]
    await writeAll(out, source, TINY, makeTensors(TINY))
    const path = join(out, 'model.safetensors.index.json')
    const index = JSON.parse(await readFile(path, 'utf8'))
    await change(index.weight_map, out)
    await writeFile(path, JSON.stringify(index))
    return out
  }
  const name = 'model.norm.weight'

  test.each<[string, (index: Record<string, string>, dir: string) => unknown, string]>([
    [
      'outside of the directory',
      async (index, dir) => {
        await mkdir(join(dir, 'sub'))
        index[name] = '../out/model-00004-of-00004.safetensors'
      },
      `Expected a plain file name for tensor "${name}" but received "../out/model-00004-of-00004.safetensors"`,
    ],
    [
      'that is missing',
      (index) => {
        index[name] = 'model-00005-of-00004.safetensors'
      },
      'Expected the shard "model-00005-of-00004.safetensors" in the directory but received none',
    ],
    [
      'without the tensor',
      (index) => {
        index[name] = 'model-00001-of-00004.safetensors'
      },
      `Expected tensor "${name}" in "model-00001-of-00004.safetensors" but the shard has none of that name`,
    ],
  ])('a shard %s is one error that names the index', async (_, change, message) => {
    const dir = await sharded(change)
    await expect(openModel(dir)).rejects.toThrow(`${join(dir, 'model.safetensors.index.json')}: ${message}`)
  })

  test('a wrong tensor is named with its shard', async () => {
    const dir = await sharded(() => {})
    const config = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8'))
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...config, vocab_size: 33 }))
    await expect(openModel(dir)).rejects.toThrow(
      `${join(dir, 'model-00001-of-00004.safetensors')}: Expected the shape [33,64] for tensor "model.embed_tokens.weight" but received [32,64]`,
    )
  })
})
