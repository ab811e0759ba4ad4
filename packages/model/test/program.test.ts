import { printProgram } from '@fireq/kernels'
import { describe, expect, test } from 'vitest'
import { buildLlama, type LlamaPlan, modelFamily, planFor, tapPoints } from '../src/index.js'
import { llamaLinears } from '../src/llama/linears.js'
import { TINY } from './support/memory-source.js'

const F32: LlamaPlan = {
  compute: 'f32',
  activations: 'none',
  queries: 'none',
  probabilities: 'f32',
  kv: { dtype: 'f32' },
}
const FIREQ: LlamaPlan = {
  compute: 'bf16',
  activations: 'e4m3',
  queries: 'e4m3',
  probabilities: 'e4m3',
  kv: { dtype: 'int4', symmetric: true, scale: 'e4m3' },
  keyScale: [new Float32Array(16).fill(2), new Float32Array(16).fill(1)],
}

const kinds = (text: string): string[] => text.split('\n').map((line) => /(\w+)\(/.exec(line)![1]!)

describe('buildLlama', () => {
  test('is the forward pass, an op a line', () => {
    const layer = ['rmsNorm', 'linear', 'rope', 'storeKv', 'attention', 'linear', 'add']
    const mlp = ['rmsNorm', 'linear', 'siluMul', 'linear', 'add']
    const program = buildLlama(TINY, F32)
    expect(kinds(printProgram(program))).toEqual([
      'embed',
      ...[...layer, ...mlp, ...layer, ...mlp],
      ...['gatherRows', 'rmsNorm', 'linear'],
    ])
    expect(program.kv).toEqual({ numLayers: 2, numKeyValueHeads: 2, headDim: 8, format: { dtype: 'f32' } })
  })

  test('quantizes inputs of linears and queries, and scales keys where a scale is not 1', () => {
    const text = printProgram(buildLlama(TINY, FIREQ, { layers: [0, 2], to: 'hidden' }))
    expect(kinds(text).filter((kind) => kind === 'quantizeFp8')).toHaveLength(2 * 5)
    expect(text.match(/scaleKeys/g)).toHaveLength(1)
    expect(text).toContain('keyScale: layers.0.keyScale')
    const kept = buildLlama(TINY, { ...FIREQ, unquantizedLinears: ['layers.1.down'] })
    expect(kinds(printProgram(kept)).filter((kind) => kind === 'quantizeFp8')).toHaveLength(2 * 5 - 1)
  })

  test('the head and the embedding are never quantized, and tied ones are one weight', () => {
    const untied = buildLlama(TINY, FIREQ)
    expect(printProgram(untied).split('\n').at(-1)).toBe('logits = linear(x: head.normed, weight: head)')
    const tied = buildLlama({ ...TINY, tieWordEmbeddings: true }, FIREQ)
    expect(printProgram(tied).split('\n').at(-1)).toBe('logits = linear(x: head.normed, weight: embed)')
    expect(tied.weights).not.toHaveProperty('head')
  })

  test('binds biases as the rows of all parts', () => {
    const { weights } = buildLlama({ ...TINY, attentionBias: true, mlpBias: true }, F32)
    expect(weights['layers.1.qkv.bias']).toEqual({
      shape: [64],
      parts: ['q', 'k', 'v'].map((name) => `model.layers.1.self_attn.${name}_proj.bias`),
    })
    expect(weights['layers.0.gateUp.bias']!.shape).toEqual([96])
    expect(weights['layers.0.down.bias']!.shape).toEqual([32])
  })

  test('a span numbers its KV layers from 0 and takes only the inputs it needs', () => {
    const span = buildLlama(TINY, F32, { layers: [1, 2], from: 'hidden', to: 'hidden' })
    expect(span.kv!.numLayers).toBe(1)
    expect(span.ops.find((op) => op.kind === 'storeKv')!.attrs).toEqual({ layer: 0 })
    const inputs = Object.entries(span.buffers).filter(([, { role }]) => role === 'input')
    expect(inputs.map(([name]) => name)).toEqual([
      ...['hidden', 'positions', 'slots', 'queryEnds', 'contextLengths', 'pageTable'],
    ])
    const embedding = buildLlama(TINY, F32, { layers: [0, 0], to: 'hidden' })
    expect(printProgram(embedding)).toBe('hiddenOut = embed(tokens: tokens, table: embed)')
    expect(embedding.kv).toBeUndefined()
    const head = buildLlama(TINY, F32, { layers: [2, 2], from: 'hidden' })
    expect(kinds(printProgram(head))).toEqual(['gatherRows', 'rmsNorm', 'linear'])
  })

  test('every tap is an FP32 output of every layer in the span', () => {
    const { buffers } = buildLlama(TINY, FIREQ, { layers: [1, 2], from: 'hidden', to: 'hidden', taps: tapPoints })
    const outputs = Object.entries(buffers).filter(([, { role }]) => role === 'output')
    expect(outputs.map(([name]) => name).sort()).toEqual([...tapPoints.map((p) => `layers.1.${p}`), 'hiddenOut'].sort())
    expect(buffers['layers.1.downInput']).toMatchObject({ dtype: 'f32', shape: ['tokens', 48] })
    expect(buffers['layers.1.keys']).toMatchObject({ dtype: 'f32', shape: ['tokens', 16] })
  })

  test.each([
    [{ layers: [0, 3] }, /within the model's 2 layers but received layers \[0, 3\)/],
    [{ layers: [1, 0] }, /within/],
    [{ layers: [0.5, 1] }, /within/],
    [{ layers: [1, 2] }, /to start at 0/],
    [{ layers: [0, 1] }, /to end at 2/],
    [{ layers: [1, 1], from: 'hidden', to: 'hidden' }, /at least one layer/],
    [{ taps: ['qkv'] }, /Expected taps among qkvInput, .* but received 'qkv'/],
  ])('refuses %j', (options, message) => {
    expect(() => buildLlama(TINY, F32, options as never)).toThrow(message)
  })

  test('refuses key scales that do not fit', () => {
    const build = (keyScale: Float32Array[]) => () => buildLlama(TINY, { ...F32, keyScale })
    const good = new Float32Array(16).fill(1)
    expect(build([good])).toThrow('Expected key scales for 2 layers but received them for 1')
    expect(build([good, good.slice(1)])).toThrow('Expected 16 key scales for layer 1 but received 15')
    expect(build([good, good.with(3, 0)])).toThrow('other than 0 for channel 3 of layer 1 but received 0')
  })
})

describe('planFor', () => {
  const weights = (layer: number, modules: string[]): Record<string, { scale: 'bf16' }> =>
    Object.fromEntries(modules.map((m) => [`model.layers.${layer}.${m}_proj.weight`, { scale: 'bf16' } as const]))
  const attention = ['q', 'k', 'v', 'o'].map((m) => `self_attn.${m}`)
  const mlp = ['gate', 'up', 'down'].map((m) => `mlp.${m}`)
  const metadata = (entries: Record<string, { scale: 'bf16' }>) => ({
    formatVersion: 1 as const,
    activations: 'e4m3' as const,
    queries: 'none' as const,
    probabilities: 'f32' as const,
    kv: { dtype: 'bf16' as const },
    weights: entries,
  })

  test('runs an unquantized model in BF16, or wholly in FP32', () => {
    expect(planFor({ config: TINY }, llamaLinears)).toEqual({ ...F32, compute: 'bf16', kv: { dtype: 'bf16' } })
    expect(planFor({ config: TINY }, llamaLinears, { compute: 'f32' })).toEqual(F32)
    const kv = { dtype: 'int4', symmetric: false, scale: 'bf16' } as const
    expect(planFor({ config: TINY }, llamaLinears, { compute: 'f32', kv })).toEqual({ ...F32, kv })
  })

  test("takes a quantized model's metadata, and lists linears that stayed as they were", () => {
    const all = { ...weights(0, [...attention, ...mlp]), ...weights(1, [...attention, 'mlp.gate', 'mlp.up']) }
    const plan = planFor({ config: TINY, quantization: metadata(all) }, llamaLinears)
    expect(plan).toMatchObject({ compute: 'bf16', activations: 'e4m3', unquantizedLinears: ['layers.1.down'] })
    const whole = { ...all, ...weights(1, ['mlp.down']) }
    expect(planFor({ config: TINY, quantization: metadata(whole) }, llamaLinears)).not.toHaveProperty(
      'unquantizedLinears',
    )
  })

  test('refuses parts of one linear that differ', () => {
    const some = { ...weights(0, ['self_attn.q', 'self_attn.k']) }
    expect(() => planFor({ config: TINY, quantization: metadata(some) }, llamaLinears)).toThrow(
      /parts of layers\.0\.qkv to be alike.*v_proj\.weight' is not INT4/,
    )
  })
})

test('an unknown family is refused by name', () => {
  expect(() => modelFamily('gpt2')).toThrow("Expected a model type among llama but received 'gpt2'")
  expect(() => modelFamily('toString')).toThrow('toString')
})
