import type { KvFormat } from '@fireq/formats'
import { type Feeds, type Program, ProgramBuilder } from '../../src/index.js'
import { BF16_STEP, exact, within } from './compare.js'
import type { OpCase } from './op-case.js'
import { fills, type Random, values } from './random.js'

const kvFormats: readonly KvFormat[] = [
  { dtype: 'f32' },
  { dtype: 'bf16' },
  ...(['bf16', 'e4m3'] as const).flatMap((scale) =>
    [true, false].map((symmetric) => ({ dtype: 'int4', symmetric, scale }) as const),
  ),
]

interface Shape {
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headDim: number
}

/**
 * Store, then attend: several sequences at once, pages in random order, in the middle of longer contexts. What the
 * contexts hold from before is stored by the same program's first op (`pastK`, `pastV`).
 *
 * Tolerance: 2⁻¹⁵ of the largest value for FP32 probabilities. An FP8 probability that is a little off may round the other
 * way, a sixteenth of it at most: 2⁻⁵ of the largest value, for one result in ten at most.
 */
export function attentionCases(random: Random): OpCase[] {
  return kvFormats.flatMap((format) => [
    ...Array.from({ length: 5 }, (_, i) => attentionCase(random, format, i)),
    ...Array.from({ length: 4 }, () => readBackCase(random, format)),
  ])
}

/** A context of one token gives its value back as the cache holds it, to the bit: the rounding of every format. */
function readBackCase(random: Random, format: KvFormat): OpCase {
  const headDim = random.pick([2, 30, 64, 96, 128, 136])
  const count = 12
  const v = new Float32Array(count * headDim)
  for (let t = 0; t < count; t++) {
    // Scales of 1, ½, … make halves ties; then everything else a row may be.
    const ties = Float32Array.from({ length: headDim }, () => random.int(-14, 15) / 2)
    const unit = 2 ** random.int(-3, 3)
    const row = t % 2 === 0 ? ties.map((x) => x * unit) : values(random, headDim, 'f32', random.pick(fills))
    if (t % 2 === 0) row.set([7 * unit, -7 * unit])
    if (t === 9) row[0] = random.pick([Number.NaN, Infinity, -Infinity])
    v.set(row, t * headDim)
  }
  const each = Int32Array.from({ length: count }, (_, t) => t)
  const shape = { numAttentionHeads: 1, numKeyValueHeads: 1, headDim }
  return {
    name: `storeKv ${JSON.stringify(format)} heads of ${headDim}, read back`,
    program: attentionProgram(shape, format, 'f32', 'f32', 'f32'),
    tensors: {},
    feeds: {
      q: new Float32Array(count * headDim),
      k: new Float32Array(count * headDim),
      v,
      pastK: new Float32Array(0),
      pastV: new Float32Array(0),
      slots: each,
      pastSlots: new Int32Array(0),
      queryEnds: each.map((t) => t + 1),
      contextLengths: new Int32Array(count).fill(1),
      pageTable: each,
    },
    kv: { pages: count, pageSize: 1 },
    tolerances: { out: exact },
  }
}

function attentionCase(random: Random, format: KvFormat, i: number): OpCase {
  const numKeyValueHeads = random.int(1, 3)
  const shape: Shape = {
    numKeyValueHeads,
    numAttentionHeads: numKeyValueHeads * random.pick([1, 2, 4, 7]),
    headDim: random.pick([2, 12, 30, 64, 80, 96, 128, 136, 256]),
  }
  const pageSize = random.pick([1, 5, 16, 16, 24, 32])
  const sequences = random.int(1, 4)
  // A long one now and then, past the length that kernels sum in one piece.
  const past = Array.from({ length: sequences }, () => random.pick([0, random.int(0, 40), i === 0 ? 530 : 3]))
  const queries = Array.from({ length: sequences }, () => random.pick([1, 1, 0, random.int(1, 20)]))
  const [qType, out, probabilities] = [
    random.pick(['f32', 'bf16', 'e4m3'] as const),
    random.pick(['f32', 'bf16'] as const),
    random.pick(['f32', 'e4m3'] as const),
  ]
  const { feeds, pages } = makeBatch(random, shape, past, queries, pageSize, qType, random.next() < 0.2)
  const largest = [...feeds.v!, ...feeds.pastV!].reduce((most, v) => Math.max(most, Math.abs(v) || 0), 0)
  const step = out === 'bf16' ? BF16_STEP : 0
  const near = within(step, 2 ** -15 * largest)
  const tolerance = probabilities === 'e4m3' ? { all: within(step, 2 ** -5 * largest), most: near } : near
  return {
    name: `attention ${JSON.stringify(format)} ${JSON.stringify(shape)} past ${past} new ${queries} pages of ${pageSize} ${qType} ${probabilities} → ${out}`,
    program: attentionProgram(shape, format, qType, out, probabilities),
    tensors: {},
    feeds,
    kv: { pages, pageSize },
    tolerances: { out: tolerance },
  }
}

function attentionProgram(
  { numAttentionHeads, numKeyValueHeads, headDim }: Shape,
  format: KvFormat,
  qType: 'f32' | 'bf16' | 'e4m3',
  out: 'f32' | 'bf16',
  probabilities: 'f32' | 'e4m3',
): Program {
  const p = new ProgramBuilder('attention', { numLayers: 2, numKeyValueHeads, headDim, format })
  const kvSize = numKeyValueHeads * headDim
  p.input('q', qType, ['tokens', numAttentionHeads * headDim])
  for (const name of ['k', 'v']) p.input(name, 'f32', ['tokens', kvSize])
  for (const name of ['pastK', 'pastV']) p.input(name, 'f32', ['outputs', kvSize]) // any other dimension would do
  p.input('slots', 'i32', ['tokens'])
  p.input('pastSlots', 'i32', ['outputs'])
  p.input('queryEnds', 'i32', ['sequences'])
  p.input('contextLengths', 'i32', ['sequences'])
  p.input('pageTable', 'i32', ['sequences', 'pages'])
  if (qType === 'e4m3') p.input('qScale', 'f32', ['tokens', numAttentionHeads])
  p.output('out', out, ['tokens', numAttentionHeads * headDim])
  p.op('storeKv', { k: 'pastK', v: 'pastV', slots: 'pastSlots' }, { layer: 1 })
  p.op('storeKv', { k: 'k', v: 'v', slots: 'slots' }, { layer: 1 })
  p.op(
    'attention',
    {
      q: 'q',
      queryEnds: 'queryEnds',
      contextLengths: 'contextLengths',
      pageTable: 'pageTable',
      out: 'out',
      ...(qType === 'e4m3' && { qScale: 'qScale' }),
    },
    { layer: 1, numAttentionHeads, softmaxScale: 1 / Math.sqrt(headDim), probabilities },
  )
  return p.build()
}

function makeBatch(
  random: Random,
  { numAttentionHeads, numKeyValueHeads, headDim }: Shape,
  past: readonly number[],
  queries: readonly number[],
  pageSize: number,
  qType: 'f32' | 'bf16' | 'e4m3',
  withNan: boolean,
): { feeds: Feeds; pages: number } {
  const lengths = past.map((p, s) => p + queries[s]!)
  const columns = Math.max(1, ...lengths.map((length) => Math.ceil(length / pageSize)))
  const pages = columns * past.length + 2
  const order = random.shuffle(Array.from({ length: pages }, (_, i) => i))
  const pageTable = Int32Array.from({ length: columns * past.length }, (_, i) => order[i]!)
  const slotsOf = (s: number, from: number, to: number): number[] =>
    Array.from({ length: to - from }, (_, i) => {
      const p = from + i
      return pageTable[s * columns + Math.floor(p / pageSize)]! * pageSize + (p % pageSize)
    })
  const [tokens, before] = [queries, past].map((counts) => counts.reduce((a, b) => a + b, 0)) as [number, number]
  const kvSize = numKeyValueHeads * headDim
  const v = values(random, tokens * kvSize)
  if (withNan && v.length > 0) v[random.int(0, v.length - 1)] = Number.NaN
  const feeds = {
    q: values(random, tokens * numAttentionHeads * headDim, qType),
    k: values(random, tokens * kvSize).map((x, i) => x * (i % headDim === 1 ? 5 : 1)),
    v,
    pastK: values(random, before * kvSize),
    pastV: values(random, before * kvSize),
    slots: Int32Array.from(past.flatMap((p, s) => slotsOf(s, p, lengths[s]!))),
    pastSlots: Int32Array.from(past.flatMap((p, s) => slotsOf(s, 0, p))),
    queryEnds: Int32Array.from(queries.map((_, s) => queries.slice(0, s + 1).reduce((a, b) => a + b, 0))),
    contextLengths: Int32Array.from(lengths),
    pageTable,
    ...(qType === 'e4m3' && {
      qScale: values(random, tokens * numAttentionHeads).map((x) => 0.1 + Math.abs(x)),
    }),
  }
  return { feeds, pages }
}
