// A Llama of 1.1 billion parameters that exists only here: the program FireQ runs it as, and random weights on demand.
import { randomFillSync } from 'node:crypto'
import { ProgramBuilder } from '@fireq/kernels'

export const config = {
  hiddenSize: 2048,
  intermediateSize: 5632,
  numHiddenLayers: 22,
  numAttentionHeads: 32,
  numKeyValueHeads: 4,
  headDim: 64,
  vocabSize: 32000,
  groupSize: 128,
}

export const kvSpec = {
  numLayers: config.numHiddenLayers,
  numKeyValueHeads: config.numKeyValueHeads,
  headDim: config.headDim,
  format: { dtype: 'int4', symmetric: false, scale: 'bf16' },
}

/** Multiply-adds with a weight per token, without the output head. */
export function layerWeights() {
  const { hiddenSize: h, intermediateSize: m, numHiddenLayers } = config
  return numHiddenLayers * (h * qkvSize() + h * h + 3 * h * m)
}

function qkvSize() {
  return (config.numAttentionHeads + 2 * config.numKeyValueHeads) * config.headDim
}

/** Tokens in, one greedy token per output row out. INT4 weights, FP8 activations and queries, INT4 KV cache. */
export function llamaProgram() {
  const { hiddenSize: h, intermediateSize: m, numAttentionHeads, numKeyValueHeads, headDim, vocabSize } = config
  const [qSize, kvSize] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]
  const p = new ProgramBuilder('llama-1b', kvSpec)
  for (const name of ['tokens', 'positions', 'slots']) p.input(name, 'i32', ['tokens'])
  for (const name of ['queryEnds', 'contextLengths']) p.input(name, 'i32', ['sequences'])
  p.input('pageTable', 'i32', ['sequences', 'pages'])
  p.input('outputRows', 'i32', ['outputs'])
  for (const name of ['temperature', 'topP', 'uniform']) p.input(name, 'f32', ['outputs'])
  p.input('topK', 'i32', ['outputs'])
  const frequencies = Float32Array.from({ length: headDim / 2 }, (_, i) => 10000 ** ((-2 * i) / headDim))
  p.constant('inverseFrequencies', frequencies)

  const buffer = (name, dtype, columns) => p.scratch(name, dtype, ['tokens', columns])
  const norm = (x, name) => {
    const out = buffer(`${name}.normed`, 'bf16', h)
    p.op('rmsNorm', { x, weight: p.weight(`${name}.weight`, [h]), out }, { eps: 1e-5 })
    return quantize(out, name, h)
  }
  const quantize = (x, name, columns, groupSize = columns) => {
    const out = buffer(`${name}.e4m3`, 'e4m3', columns)
    const scale = buffer(`${name}.scale`, 'f32', columns / groupSize)
    p.op('quantizeFp8', { x, out, scale }, { groupSize })
    return { x: out, xScale: scale }
  }
  const linear = (input, name, columns, rows) => {
    const out = buffer(name, 'bf16', rows)
    p.op('linear', { ...input, weight: p.weight(`${name}.weight`, [rows, columns]), out }, {})
    return out
  }
  const add = (a, b, name) => {
    const out = buffer(name, 'bf16', h)
    p.op('add', { a, b, out }, {})
    return out
  }

  let hidden = buffer('embedded', 'bf16', h)
  p.op('embed', { tokens: 'tokens', table: p.weight('embed', [vocabSize, h]), out: hidden }, {})
  for (let layer = 0; layer < config.numHiddenLayers; layer++) {
    const at = (name) => `layers.${layer}.${name}`
    const qkv = linear(norm(hidden, at('inputNorm')), at('qkv'), h, qSize + 2 * kvSize)
    const [q, k, v] = [buffer(at('q'), 'bf16', qSize), buffer(at('k'), 'bf16', kvSize), buffer(at('v'), 'bf16', kvSize)]
    p.op(
      'rope',
      { qkv, positions: 'positions', inverseFrequencies: 'inverseFrequencies', q, k, v },
      { numAttentionHeads, numKeyValueHeads, headDim },
    )
    p.op('storeKv', { k, v, slots: 'slots' }, { layer })
    const { x: q8, xScale: qScale } = quantize(q, at('q'), qSize, headDim)
    const attended = buffer(at('attended'), 'bf16', qSize)
    const batch = { queryEnds: 'queryEnds', contextLengths: 'contextLengths', pageTable: 'pageTable' }
    p.op(
      'attention',
      { q: q8, qScale, ...batch, out: attended },
      { layer, numAttentionHeads, softmaxScale: 1 / Math.sqrt(headDim), probabilities: 'e4m3' },
    )
    const afterAttention = add(
      hidden,
      linear(quantize(attended, at('o'), qSize), at('o'), qSize, h),
      at('afterAttention'),
    )
    const gateUp = linear(norm(afterAttention, at('postNorm')), at('gateUp'), h, 2 * m)
    const activated = buffer(at('activated'), 'bf16', m)
    p.op('siluMul', { gateUp, out: activated }, {})
    hidden = add(afterAttention, linear(quantize(activated, at('down'), m), at('down'), m, h), at('hidden'))
  }
  const last = p.scratch('last', 'bf16', ['outputs', h])
  p.op('gatherRows', { x: hidden, rows: 'outputRows', out: last }, {})
  const normed = p.scratch('normed', 'bf16', ['outputs', h])
  p.op('rmsNorm', { x: last, weight: p.weight('norm.weight', [h]), out: normed }, { eps: 1e-5 })
  const logits = p.scratch('logits', 'f32', ['outputs', vocabSize])
  p.op('linear', { x: normed, weight: p.weight('lmHead', [vocabSize, h]), out: logits }, {})
  const token = p.output('token', 'i32', ['outputs'])
  const draw = { temperature: 'temperature', topK: 'topK', topP: 'topP', uniform: 'uniform' }
  p.op('sample', { logits, ...draw, token }, {})
  return p.build()
}

/** Random weights as a checkpoint would hold them: INT4 groups with BF16 scales in the layers, BF16 elsewhere. */
export function randomWeight(shape, inLayers) {
  const [rows, columns] = shape
  const count = rows * (columns ?? 1)
  if (columns === undefined) return { kind: 'dense', dtype: 'f32', shape, data: new Float32Array(count).fill(1) }
  if (!inLayers) {
    const data = new Uint16Array(count)
    for (let i = 0; i < count; i++) data[i] = 0x3c80 + ((i * 2654435761) & 0x807f) // about ±1/64
    return { kind: 'dense', dtype: 'bf16', shape, data }
  }
  const codes = new Uint8Array(count / 2)
  for (let at = 0; at < codes.length; at += 1 << 30) randomFillSync(codes, at, Math.min(1 << 30, codes.length - at))
  const scales = new Uint16Array(count / config.groupSize).fill(0x3b00)
  return { kind: 'int4', shape, groupSize: config.groupSize, codes, groupScale: { dtype: 'bf16', data: scales } }
}

/** A step of one sequence whose pages lie in order. */
export function step(tokens, context, pages) {
  const count = tokens.length
  const positions = Int32Array.from({ length: count }, (_, i) => context - count + i)
  return {
    tokens: Int32Array.from(tokens),
    positions,
    slots: positions,
    queryEnds: Int32Array.of(count),
    contextLengths: Int32Array.of(context),
    pageTable: Int32Array.from({ length: pages }, (_, i) => i),
    outputRows: Int32Array.of(count - 1),
    temperature: Float32Array.of(0),
    topP: Float32Array.of(1),
    uniform: Float32Array.of(0),
    topK: Int32Array.of(0),
  }
}
