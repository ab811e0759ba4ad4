import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { ConfigError, llamaTensors, MODEL_FAMILIES, parseLlamaConfig, parseModelConfig } from '../src/index.js'

/** What transformers wrote into the published models, in its own formatting; nothing that matters is left out. */
const PUBLISHED = {
  'Llama-2-7b-hf': `{
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008, "max_position_embeddings": 4096,
    "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
    "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_scaling": null, "tie_word_embeddings": false,
    "torch_dtype": "float16", "transformers_version": "4.31.0.dev0", "use_cache": true, "vocab_size": 32000
  }`,
  'Meta-Llama-3-8B': `{
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": 128001, "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": null, "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.40.0.dev0", "use_cache": true, "vocab_size": 128256
  }`,
  'Llama-3.1-8B-Instruct': `{
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3", "use_cache": true, "vocab_size": 128256
  }`,
  'Llama-3.2-1B': `{
    "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 128000,
    "eos_token_id": 128001, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
    "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama",
    "num_attention_heads": 32, "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16",
    "transformers_version": "4.45.0.dev0", "use_cache": true, "vocab_size": 128256
  }`,
} as const

const EXPECTED = {
  'Llama-2-7b-hf': {
    modelType: 'llama',
    hiddenSize: 4096,
    intermediateSize: 11008,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 32,
    headDim: 128,
    vocabSize: 32000,
    maxPositionEmbeddings: 4096,
    rmsNormEps: 1e-5,
    rope: { theta: 10000 },
    tieWordEmbeddings: false,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 1,
    eosTokenIds: [2],
  },
  'Meta-Llama-3-8B': {
    modelType: 'llama',
    hiddenSize: 4096,
    intermediateSize: 14336,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 128256,
    maxPositionEmbeddings: 8192,
    rmsNormEps: 1e-5,
    rope: { theta: 500000 },
    tieWordEmbeddings: false,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 128000,
    eosTokenIds: [128001],
  },
  'Llama-3.1-8B-Instruct': {
    modelType: 'llama',
    hiddenSize: 4096,
    intermediateSize: 14336,
    numHiddenLayers: 32,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    headDim: 128,
    vocabSize: 128256,
    maxPositionEmbeddings: 131072,
    rmsNormEps: 1e-5,
    rope: {
      theta: 500000,
      scaling: {
        type: 'llama3',
        factor: 8,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 8192,
      },
    },
    tieWordEmbeddings: false,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 128000,
    eosTokenIds: [128001, 128008, 128009],
  },
  'Llama-3.2-1B': {
    modelType: 'llama',
    hiddenSize: 2048,
    intermediateSize: 8192,
    numHiddenLayers: 16,
    numAttentionHeads: 32,
    numKeyValueHeads: 8,
    headDim: 64,
    vocabSize: 128256,
    maxPositionEmbeddings: 131072,
    rmsNormEps: 1e-5,
    rope: {
      theta: 500000,
      scaling: {
        type: 'llama3',
        factor: 32,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 8192,
      },
    },
    tieWordEmbeddings: true,
    attentionBias: false,
    mlpBias: false,
    bosTokenId: 128000,
    eosTokenIds: [128001],
  },
}

type Raw = Record<string, unknown>
const models = Object.keys(PUBLISHED) as (keyof typeof PUBLISHED)[]
const raw = (model: keyof typeof PUBLISHED): Raw => JSON.parse(PUBLISHED[model])

/** As transformers 5 spells it. */
function respelled(old: Raw): Raw {
  const { rope_theta, rope_scaling, torch_dtype, ...rest } = old
  const parameters = { rope_type: 'default', ...(rope_scaling as Raw | null), rope_theta: rope_theta ?? 10000 }
  return { ...rest, dtype: torch_dtype, rope_parameters: parameters }
}

describe('published models', () => {
  test.each(models)('%s', (model) => {
    expect(parseLlamaConfig(raw(model), 'config.json')).toEqual(EXPECTED[model])
  })

  test.each(models)('%s in the spelling of transformers 5', (model) => {
    expect(parseLlamaConfig(respelled(raw(model)), 'config.json')).toEqual(EXPECTED[model])
  })

  test.each(models)('%s in both spellings at once', (model) => {
    const both = { ...raw(model), ...respelled(raw(model)) }
    expect(parseLlamaConfig(both, 'config.json')).toEqual(EXPECTED[model])
  })

  test('the stand-in, written by transformers 5', async () => {
    const path = fileURLToPath(new URL('../../../models/standin/config.json', import.meta.url))
    const config = parseModelConfig(JSON.parse(await readFile(path, 'utf8')), path)
    expect(config).toMatchObject({ numHiddenLayers: 8, headDim: 128, rope: { theta: 10000 }, eosTokenIds: [1] })
  })
})

describe('what may be missing or null', () => {
  const llama3 = raw('Meta-Llama-3-8B')
  const parse = (change: Raw) => parseLlamaConfig({ ...llama3, ...change }, 'config.json')

  test('head_dim and num_key_value_heads follow from the heads', () => {
    for (const nothing of [undefined, null]) {
      expect(parse({ head_dim: nothing }).headDim).toBe(128)
      expect(parse({ num_key_value_heads: nothing }).numKeyValueHeads).toBe(32)
    }
    expect(parse({ head_dim: 64 }).headDim).toBe(64)
  })

  test('token ids', () => {
    const config = parse({ bos_token_id: null, eos_token_id: null })
    expect(config).not.toHaveProperty('bosTokenId')
    expect(config.eosTokenIds).toEqual([])
  })

  test("transformers' defaults", () => {
    const { rms_norm_eps, hidden_act, tie_word_embeddings, attention_bias, rope_theta, ...rest } = llama3
    const config = parseLlamaConfig(rest, 'config.json')
    expect(config).toMatchObject({ rmsNormEps: 1e-6, tieWordEmbeddings: false, attentionBias: false })
    expect(config.rope).toEqual({ theta: 10000 })
  })

  test('biases', () => {
    expect(parse({ attention_bias: true, mlp_bias: true })).toMatchObject({ attentionBias: true, mlpBias: true })
  })

  test('rope scaling by its oldest key', () => {
    expect(parse({ rope_scaling: { type: 'linear', factor: 2 } }).rope.scaling).toEqual({ type: 'linear', factor: 2 })
    expect(parse({ rope_scaling: { type: 'linear', rope_type: 'linear', factor: 2.5 } }).rope.scaling).toEqual({
      type: 'linear',
      factor: 2.5,
    })
    expect(parse({ rope_scaling: { rope_type: 'default' } }).rope).toEqual({ theta: 500000 })
  })
})

describe('one clear error for', () => {
  const base = raw('Llama-3.1-8B-Instruct')
  const scaling = base.rope_scaling as Raw
  const integer = (max: number) => `an integer from 1 to ${max}`
  const size = integer(2 ** 24)
  const count = integer(2 ** 16)
  const rope = (change: Raw) => ({ rope_scaling: { ...scaling, ...change } })

  test.each<[string, Raw, string]>([
    [
      'another family',
      { model_type: 'mamba' },
      'Expected "llama" for model_type in m/config.json but received "mamba"',
    ],
    ['no family', { model_type: undefined }, 'Expected "llama" for model_type in m/config.json but received nothing'],
    [
      'another architecture',
      { architectures: ['LlamaForSequenceClassification'] },
      'Expected "LlamaForCausalLM" for architectures.0 in m/config.json but received "LlamaForSequenceClassification"',
    ],
    [
      'another activation',
      { hidden_act: 'gelu' },
      'Expected "silu" for hidden_act in m/config.json but received "gelu"',
    ],
    ['a negative size', { hidden_size: -4096 }, `Expected ${size} for hidden_size in m/config.json but received -4096`],
    ['a zero size', { vocab_size: 0 }, `Expected ${size} for vocab_size in m/config.json but received 0`],
    ['a fraction', { head_dim: 64.5 }, `Expected ${count} for head_dim in m/config.json but received 64.5`],
    [
      'a huge size',
      { intermediate_size: 1e300 },
      `Expected ${size} for intermediate_size in m/config.json but received 1e+300`,
    ],
    [
      '2^53',
      { num_hidden_layers: 2 ** 53 },
      `Expected ${count} for num_hidden_layers in m/config.json but received 9007199254740992`,
    ],
    ['NaN', { hidden_size: Number.NaN }, `Expected ${size} for hidden_size in m/config.json but received NaN`],
    [
      'infinity',
      { rms_norm_eps: Infinity },
      'Expected a number from 1e-12 to 1 for rms_norm_eps in m/config.json but received Infinity',
    ],
    ['a string', { hidden_size: '4096' }, `Expected ${size} for hidden_size in m/config.json but received "4096"`],
    [
      'a missing size',
      { hidden_size: undefined },
      `Expected ${size} for hidden_size in m/config.json but received nothing`,
    ],
    [
      'a flag that is a string',
      { attention_bias: 'no' },
      'Expected true or false for attention_bias in m/config.json but received "no"',
    ],
    [
      'heads that do not divide',
      { num_attention_heads: 24, num_key_value_heads: 8 },
      'Expected a divisor of hidden_size (4096) for num_attention_heads in m/config.json but received 24',
    ],
    [
      'key-value heads that do not divide',
      { num_key_value_heads: 7 },
      'Expected a divisor of num_attention_heads (32) for num_key_value_heads in m/config.json but received 7',
    ],
    ['an odd head', { head_dim: 127 }, 'Expected an even number for head_dim in m/config.json but received 127'],
    [
      'partial rotation',
      { partial_rotary_factor: 0.5 },
      'Expected 1 for partial_rotary_factor in m/config.json but received 0.5',
    ],
    [
      'a sliding window',
      { sliding_window: 4096 },
      'Expected null for sliding_window in m/config.json but received 4096',
    ],
    [
      'an encoder',
      { is_encoder_decoder: true },
      'Expected false for is_encoder_decoder in m/config.json but received true',
    ],
    [
      'a negative token',
      { bos_token_id: -1 },
      'Expected an integer from 0 to 16777215 for bos_token_id in m/config.json but received -1',
    ],
    [
      'a token outside of the vocabulary',
      { eos_token_id: [128001, 128256] },
      'Expected a token id below vocab_size (128256) for eos_token_id in m/config.json but received 128256',
    ],
    [
      'a token that is no number',
      { eos_token_id: '2' },
      'Expected a token id or a list of them for eos_token_id in m/config.json but received "2"',
    ],
    [
      'a negative theta',
      { rope_theta: -1 },
      'Expected a number from 1 to 1000000000000000 for rope_theta in m/config.json but received -1',
    ],
    [
      'rope that is no object',
      { rope_scaling: 8 },
      'Expected an object or null for rope_scaling in m/config.json but received 8',
    ],
    [
      'another rope type',
      rope({ rope_type: 'yarn' }),
      'Expected a supported type (default, linear, llama3) for rope_scaling.rope_type in m/config.json but received "yarn"',
    ],
    [
      'the name of a method as the type',
      { rope_scaling: { type: 'toString' } },
      'Expected a supported type (default, linear, llama3) for rope_scaling.type in m/config.json but received "toString"',
    ],
    [
      'two types',
      rope({ type: 'linear' }),
      'Expected llama3, as rope_type says, for rope_scaling.type in m/config.json but received "linear"',
    ],
    [
      'a small factor',
      rope({ factor: 0.5 }),
      'Expected a number from 1 to 1000000 for rope_scaling.factor in m/config.json but received 0.5',
    ],
    [
      'a missing factor',
      rope({ factor: undefined }),
      'Expected a number from 1 to 1000000 for rope_scaling.factor in m/config.json but received nothing',
    ],
    [
      'frequency factors in the wrong order',
      rope({ low_freq_factor: 4 }),
      'Expected a number above low_freq_factor (4) for rope_scaling.high_freq_factor in m/config.json but received 4',
    ],
    [
      'a fractional original length',
      rope({ original_max_position_embeddings: 8192.5 }),
      'Expected an integer from 1 to 2147483647 for rope_scaling.original_max_position_embeddings in m/config.json but received 8192.5',
    ],
    [
      'an unknown rope parameter',
      rope({ beta_fast: 32 }),
      'Expected no field rope_scaling.beta_fast in m/config.json: its meaning is unknown',
    ],
    [
      'a factor that the type ignores',
      { rope_scaling: { rope_type: 'default', factor: 4 } },
      'Expected 1 for rope_scaling.factor in m/config.json but received 4',
    ],
    [
      'partial rotation among the rope parameters',
      { rope_scaling: null, rope_parameters: { rope_type: 'default', rope_theta: 5e5, partial_rotary_factor: 0.5 } },
      'Expected 1 for rope_parameters.partial_rotary_factor in m/config.json but received 0.5',
    ],
    [
      'two thetas',
      { rope_parameters: { ...scaling, rope_theta: 10000 } },
      'Expected 500000, as rope_theta says, for rope_parameters.rope_theta in m/config.json but received 10000',
    ],
    [
      'two scalings',
      { rope_parameters: { rope_type: 'linear', factor: 4 }, rope_scaling: { rope_type: 'linear', factor: 8 } },
      'Expected the same as rope_parameters for rope_scaling in m/config.json but received {"rope_type":"linear","factor":8}',
    ],
  ])('%s', (_, change, message) => {
    expect(() => parseLlamaConfig({ ...base, ...change }, 'm/config.json')).toThrow(new ConfigError(message))
  })

  test.each<[string, unknown, string]>([
    ['a list', [], '[]'],
    ['null', null, 'null'],
    ['a string', 'llama', '"llama"'],
    ['nothing', undefined, 'nothing'],
  ])('%s instead of an object', (_, json, received) => {
    expect(() => parseLlamaConfig(json, 'm/config.json')).toThrow(
      new ConfigError(`Expected an object in m/config.json but received ${received}`),
    )
  })

  test('a family that is not registered, even one that every object has', () => {
    for (const family of ['gpt2', 'constructor', '__proto__']) {
      expect(() => parseModelConfig({ ...base, model_type: family }, 'm/config.json')).toThrow(
        new ConfigError(
          `Expected a supported model family (${Object.keys(MODEL_FAMILIES).join(', ')}) for model_type in m/config.json but received "${family}"`,
        ),
      )
    }
  })
})

test('any value in any field gives a config or a ConfigError of one short line', () => {
  const base = raw('Llama-3.1-8B-Instruct')
  const field = fc.constantFrom(...Object.keys(base), 'head_dim', 'rope_parameters', 'sliding_window')
  const value = fc.oneof(
    fc.jsonValue(),
    fc.double(),
    fc.integer(),
    fc.dictionary(fc.constantFrom(...Object.keys(base.rope_scaling as Raw)), fc.oneof(fc.double(), fc.jsonValue())),
  )
  fc.assert(
    fc.property(field, value, (name, json) => {
      let config: ReturnType<typeof parseLlamaConfig>
      try {
        config = parseLlamaConfig({ ...base, [name]: json }, 'config.json')
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError)
        expect((error as Error).message).toMatch(/^Expected .* in config\.json.*$/)
        expect((error as Error).message.length).toBeLessThan(300)
        return
      }
      const { hiddenSize, numAttentionHeads, numKeyValueHeads, headDim, eosTokenIds, vocabSize } = config
      expect([hiddenSize % numAttentionHeads, numAttentionHeads % numKeyValueHeads, headDim % 2]).toEqual([0, 0, 0])
      expect(eosTokenIds.every((id) => id >= 0 && id < vocabSize)).toBe(true)
    }),
    { numRuns: 2000 },
  )
})

describe('the tensors of a config', () => {
  const parameters = (model: keyof typeof PUBLISHED) =>
    llamaTensors(parseLlamaConfig(raw(model), 'config.json'))
      .flatMap(({ tensors }) => tensors)
      .reduce((sum, { shape }) => sum + shape.reduce((product, dim) => product * dim, 1), 0)

  test('make the published number of parameters', () => {
    expect(parameters('Llama-2-7b-hf')).toBe(6_738_415_616)
    expect(parameters('Meta-Llama-3-8B')).toBe(8_030_261_248)
    expect(parameters('Llama-3.1-8B-Instruct')).toBe(8_030_261_248)
    expect(parameters('Llama-3.2-1B')).toBe(1_235_814_400)
  })

  test('come in groups, in the order of the forward pass, with biases where the config has them', () => {
    const config = parseLlamaConfig({ ...raw('Meta-Llama-3-8B'), num_hidden_layers: 2, attention_bias: true }, 'c')
    const groups = llamaTensors(config)
    expect(groups.map(({ key }) => key)).toEqual(['embed', 'layer-0', 'layer-1', 'head'])
    expect(groups[2].tensors.slice(3, 5)).toEqual([
      { name: 'model.layers.1.self_attn.k_proj.weight', shape: [1024, 4096], quantizable: true },
      { name: 'model.layers.1.self_attn.k_proj.bias', shape: [1024], quantizable: false },
    ])
    expect(groups[3].tensors.map(({ name }) => name)).toEqual(['model.norm.weight', 'lm_head.weight'])
  })
})
