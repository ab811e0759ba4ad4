import type { KvFormat, Tensor } from '@fireq/formats'
import { type Feeds, type Program, ProgramBuilder } from '../../src/index.js'
import { dense, int4, type Random } from './random.js'

const hiddenSize = 64
const intermediateSize = 96
const vocabSize = 50
const numLayers = 2
const [numAttentionHeads, numKeyValueHeads, headDim] = [4, 2, 32]
const [qSize, kvSize] = [numAttentionHeads * headDim, numKeyValueHeads * headDim]

export interface TinyPlan {
  readonly compute: 'f32' | 'bf16'
  readonly fp8: boolean
  readonly kv: KvFormat
}

/** A whole decoder with every op in it, small enough for the reference; `logits` [outputs, 50]. */
export function tinyLlama({ compute, fp8, kv }: TinyPlan): Program {
  const p = new ProgramBuilder('tiny-llama', { numLayers, numKeyValueHeads, headDim, format: kv })
  for (const name of ['tokens', 'positions', 'slots']) p.input(name, 'i32', ['tokens'])
  for (const name of ['queryEnds', 'contextLengths']) p.input(name, 'i32', ['sequences'])
  p.input('pageTable', 'i32', ['sequences', 'pages'])
  p.input('outputRows', 'i32', ['outputs'])
  p.constant(
    'inverseFrequencies',
    Float32Array.from({ length: headDim / 2 }, (_, i) => 100 ** ((-2 * i) / headDim)),
  )
  p.constant(
    'keyScale',
    Float32Array.from({ length: kvSize }, (_, i) => (i % 5 === 0 ? 0.25 : 1)),
  )
  const buffer = (name: string, columns: number): string => p.scratch(name, compute, ['tokens', columns])
  const quantized = (x: string, columns: number, groupSize = columns): { x: string; scale?: string } => {
    if (!fp8) return { x }
    const out = p.scratch(`${x}.e4m3`, 'e4m3', ['tokens', columns])
    const scale = p.scratch(`${x}.scale`, 'f32', ['tokens', columns / groupSize])
    p.op('quantizeFp8', { x, out, scale }, { groupSize })
    return { x: out, scale }
  }
  const linear = (input: string, name: string, columns: number, rows: number): string => {
    const { x, scale } = quantized(input, columns)
    const out = buffer(name, rows)
    p.op('linear', { x, ...(scale && { xScale: scale }), weight: p.weight(`${name}.weight`, [rows, columns]), out }, {})
    return out
  }
  const norm = (x: string, name: string): string => {
    const out = buffer(name, hiddenSize)
    p.op('rmsNorm', { x, weight: p.weight(`${name}.weight`, [hiddenSize]), out }, { eps: 1e-5 })
    return out
  }
  const add = (a: string, b: string, name: string): string => {
    const out = buffer(name, hiddenSize)
    p.op('add', { a, b, out }, {})
    return out
  }

  let hidden = buffer('embedded', hiddenSize)
  p.op('embed', { tokens: 'tokens', table: p.weight('embed', [vocabSize, hiddenSize]), out: hidden }, {})
  for (let layer = 0; layer < numLayers; layer++) {
    const at = (name: string): string => `layers.${layer}.${name}`
    const qkv = linear(norm(hidden, at('inputNorm')), at('qkv'), hiddenSize, qSize + 2 * kvSize)
    const [q, k, v, qScaled, kScaled] = [
      buffer(at('q'), qSize),
      buffer(at('k'), kvSize),
      buffer(at('v'), kvSize),
      buffer(at('qScaled'), qSize),
      buffer(at('kScaled'), kvSize),
    ]
    p.op(
      'rope',
      { qkv, positions: 'positions', inverseFrequencies: 'inverseFrequencies', q, k, v },
      { numAttentionHeads, numKeyValueHeads, headDim },
    )
    p.op('scaleKeys', { q, k, keyScale: 'keyScale', qOut: qScaled, kOut: kScaled }, { headDim })
    p.op('storeKv', { k: kScaled, v, slots: 'slots' }, { layer })
    const { x: query, scale: qScale } = quantized(qScaled, qSize, headDim)
    const attended = buffer(at('attended'), qSize)
    const batch = { queryEnds: 'queryEnds', contextLengths: 'contextLengths', pageTable: 'pageTable' }
    p.op(
      'attention',
      { q: query, ...(qScale && { qScale }), ...batch, out: attended },
      { layer, numAttentionHeads, softmaxScale: 1 / Math.sqrt(headDim), probabilities: fp8 ? 'e4m3' : 'f32' },
    )
    const afterAttention = add(hidden, linear(attended, at('o'), qSize, hiddenSize), at('afterAttention'))
    const gateUp = linear(norm(afterAttention, at('postNorm')), at('gateUp'), hiddenSize, 2 * intermediateSize)
    const activated = buffer(at('activated'), intermediateSize)
    p.op('siluMul', { gateUp, out: activated }, {})
    hidden = add(afterAttention, linear(activated, at('down'), intermediateSize, hiddenSize), at('hidden'))
  }
  p.output('tapped', 'f32', ['tokens', hiddenSize])
  p.op('tap', { x: hidden, out: 'tapped' }, {})
  const last = p.scratch('last', compute, ['outputs', hiddenSize])
  p.op('gatherRows', { x: hidden, rows: 'outputRows', out: last }, {})
  p.output('logits', 'f32', ['outputs', vocabSize])
  p.op('linear', { x: last, weight: p.weight('lmHead', [vocabSize, hiddenSize]), out: 'logits' }, {})
  return p.build()
}

export function tinyWeights(random: Random, program: Program): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(program.weights).map(([name, { shape }]) => {
      if (shape.length === 1)
        return [name, { kind: 'dense', dtype: 'f32', shape, data: new Float32Array(shape[0]!).fill(1) }]
      if (!name.startsWith('layers')) return [name, dense(random, shape, 'bf16')]
      const scales = new Float32Array((shape[0]! * shape[1]!) / 32).fill(0.03)
      return [name, { ...int4(random, shape as [number, number], 32), groupScale: { dtype: 'f32', data: scales } }]
    }),
  )
}

/** New tokens of a sequence, after `past` others. */
export interface Turn {
  readonly tokens: readonly number[]
  readonly past: number
  /** Its pages, in order. */
  readonly pages: readonly number[]
}

/** One step for several sequences; logits of every token. */
export function tinyStep(turns: readonly Turn[], pageSize: number): Feeds {
  const columns = Math.max(...turns.map(({ pages }) => pages.length))
  const positions = turns.flatMap(({ tokens, past }) => tokens.map((_, i) => past + i))
  const slots = turns.flatMap(({ tokens, past, pages }) =>
    tokens.map((_, i) => pages[Math.floor((past + i) / pageSize)]! * pageSize + ((past + i) % pageSize)),
  )
  const ends = turns.map((_, s) => turns.slice(0, s + 1).reduce((sum, { tokens }) => sum + tokens.length, 0))
  return {
    tokens: Int32Array.from(turns.flatMap(({ tokens }) => tokens)),
    positions: Int32Array.from(positions),
    slots: Int32Array.from(slots),
    queryEnds: Int32Array.from(ends),
    contextLengths: Int32Array.from(turns, ({ tokens, past }) => past + tokens.length),
    pageTable: Int32Array.from(turns.flatMap(({ pages }) => Array.from({ length: columns }, (_, i) => pages[i] ?? 0))),
    outputRows: Int32Array.from(positions.keys()),
  }
}
