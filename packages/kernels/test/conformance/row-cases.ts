import { roundBf16, roundE4m3 } from '@fireq/formats'
import { BF16_STEP, exact, type Tolerance, within } from './compare.js'
import { type OpCase, singleOp } from './op-case.js'
import { dense, fills, int4, type Random, values } from './random.js'

const floats = ['f32', 'bf16'] as const
type Float = (typeof floats)[number]

/** FP32 within a few rounding errors, BF16 within a step. */
function near(dtype: Float, relative: number, absolute = 0): Tolerance {
  return within(dtype === 'bf16' ? BF16_STEP : relative, absolute)
}

/** Ops that work row by row: norms, quantization, activations, picking and rotating. */
export function rowCases(random: Random): OpCase[] {
  return [embed, norm, quantize, normQuantize, silu, siluQuantize, rope, scaleKeys, elementwise, sample].flatMap(
    (make) => Array.from({ length: 8 }, (_, i) => make(random, i)).flat(),
  )
}

function embed(random: Random, i: number): OpCase {
  const shape = [random.int(1, 40), 8 * random.int(1, 20)] as const
  const makers = [
    () => dense(random, shape, 'f32'),
    () => dense(random, shape, 'bf16'),
    () => dense(random, shape, 'f16'),
    () => int4(random, shape, 8, { channelScale: true }),
    () => int4(random, shape, shape[1], { scale: 'e4m3', lookupRounding: true }),
  ]
  const table = makers[i % makers.length]!()
  const out = random.pick(floats)
  const tokens = Int32Array.from({ length: random.int(0, 9) }, () => random.int(0, shape[0] - 1))
  const op = {
    inputs: { tokens: ['i32', 'tokens'] },
    outputs: { out: [out, 'tokens', shape[1]] },
    weights: { table },
  } as const
  return {
    name: `embed ${table.kind} → ${out}`,
    ...singleOp('embed', op),
    feeds: { tokens },
    tolerances: { out: exact },
  }
}

/** x of one fill per row, so that a case has ordinary and extreme rows; sometimes a NaN or an infinity. */
function rows(random: Random, count: number, columns: number, dtype: Float): Float32Array {
  const x = new Float32Array(count * columns)
  for (let t = 0; t < count; t++) x.set(values(random, columns, dtype, random.pick(fills)), t * columns)
  if (count > 0 && random.next() < 0.3) x[random.int(0, x.length - 1)] = random.pick([Number.NaN, Infinity, -Infinity])
  return x
}

function norm(random: Random): OpCase {
  const [count, columns] = [random.int(0, 9), random.int(1, 300)]
  const [type, out] = [random.pick(floats), random.pick(floats)]
  const weight = dense(random, [columns], random.pick(['f32', 'bf16', 'f16'] as const))
  return {
    name: `rmsNorm [${count}, ${columns}] ${type} → ${out}`,
    ...singleOp('rmsNorm', {
      inputs: { x: [type, 'tokens', columns] },
      outputs: { out: [out, 'tokens', columns] },
      attrs: { eps: random.pick([1e-5, 1e-6]) },
      weights: { weight },
    }),
    feeds: { x: rows(random, count, columns, type) },
    tolerances: { out: near(out, 2 ** -20, 2 ** -140) },
  }
}

function quantize(random: Random): OpCase {
  const groupSize = random.pick([1, 2, 15, 64, 128, random.int(1, 300)])
  const columns = groupSize * random.int(1, 3)
  const type = random.pick(floats)
  const x = rows(random, random.int(0, 9), columns, type)
  return {
    name: `quantizeFp8 ${columns} columns by ${groupSize} ${type}`,
    ...singleOp('quantizeFp8', {
      inputs: { x: [type, 'tokens', columns] },
      outputs: { out: ['e4m3', 'tokens', columns], scale: ['f32', 'tokens', columns / groupSize] },
      attrs: { groupSize },
    }),
    feeds: { x },
    tolerances: { out: exact, scale: exact },
  }
}

/** One step of an E4M3 number: what rounds to it may be off by a little. */
const e4m3Step: Tolerance = (expected) => {
  let next = Math.abs(expected)
  while (roundE4m3(next) === Math.abs(expected) && next < 448) next += Math.max(2 ** -9, next / 16)
  return Math.max(roundE4m3(next) - Math.abs(expected), 2 ** -9, Math.abs(expected) / 8)
}

function normQuantize(random: Random): OpCase {
  const [count, columns] = [random.int(0, 9), random.int(1, 300)]
  const intermediate = random.pick(floats)
  return {
    name: `rmsNormQuantize [${count}, ${columns}] through ${intermediate}`,
    ...singleOp('rmsNormQuantize', {
      inputs: { x: ['f32', 'tokens', columns] },
      outputs: { out: ['e4m3', 'tokens', columns], scale: ['f32', 'tokens', 1] },
      attrs: { eps: 1e-5, intermediate },
      weights: { weight: dense(random, [columns]) },
    }),
    feeds: { x: rows(random, count, columns, 'f32') },
    tolerances: { out: e4m3Step, scale: near(intermediate, 2 ** -20, 2 ** -140) },
  }
}

function silu(random: Random): OpCase {
  const [count, columns] = [random.int(0, 9), random.int(1, 300)]
  const [type, out] = [random.pick(floats), random.pick(floats)]
  return {
    name: `siluMul [${count}, ${columns}] ${type} → ${out}`,
    ...singleOp('siluMul', {
      inputs: { gateUp: [type, 'tokens', 2 * columns] },
      outputs: { out: [out, 'tokens', columns] },
    }),
    feeds: { gateUp: rows(random, count, 2 * columns, type) },
    tolerances: { out: near(out, 2 ** -20, 2 ** -110) },
  }
}

function siluQuantize(random: Random): OpCase {
  const [count, columns] = [random.int(0, 9), random.int(1, 300)]
  const intermediate = random.pick(floats)
  return {
    name: `siluMulQuantize [${count}, ${columns}] through ${intermediate}`,
    ...singleOp('siluMulQuantize', {
      inputs: { gateUp: ['f32', 'tokens', 2 * columns] },
      outputs: { out: ['e4m3', 'tokens', columns], scale: ['f32', 'tokens', 1] },
      attrs: { intermediate },
    }),
    feeds: { gateUp: values(random, count * 2 * columns) },
    tolerances: { out: e4m3Step, scale: near(intermediate, 2 ** -20) },
  }
}

function rope(random: Random): OpCase {
  const numKeyValueHeads = random.int(1, 3)
  const [numAttentionHeads, headDim] = [numKeyValueHeads * random.int(1, 3), 2 * random.int(1, 70)]
  const [type, out] = [random.pick(floats), random.pick(floats)]
  const [q, kv, count] = [numAttentionHeads * headDim, numKeyValueHeads * headDim, random.int(0, 5)]
  return {
    name: `rope ${numAttentionHeads}/${numKeyValueHeads} heads of ${headDim} ${type} → ${out}`,
    ...singleOp('rope', {
      inputs: { qkv: [type, 'tokens', q + 2 * kv], positions: ['i32', 'tokens'] },
      outputs: { q: [out, 'tokens', q], k: [out, 'tokens', kv], v: [out, 'tokens', kv] },
      attrs: { numAttentionHeads, numKeyValueHeads, headDim },
      constants: {
        inverseFrequencies: Float32Array.from({ length: headDim / 2 }, (_, i) => 10000 ** ((-2 * i) / headDim)),
      },
    }),
    feeds: {
      qkv: values(random, count * (q + 2 * kv), type),
      positions: Int32Array.from({ length: count }, () => random.int(0, random.pick([10, 5000, 2 ** 31 - 1]))),
    },
    tolerances: { q: near(out, 2 ** -20, 2 ** -20), k: near(out, 2 ** -20, 2 ** -20), v: near(out, 0) },
  }
}

function scaleKeys(random: Random): OpCase {
  const headDim = random.int(1, 70)
  const kSize = headDim * random.int(1, 3)
  const [qSize, count] = [kSize * random.int(1, 3), random.int(0, 5)]
  const [type, out] = [random.pick(floats), random.pick(floats)]
  return {
    name: `scaleKeys ${qSize}/${kSize} by ${headDim} ${type} → ${out}`,
    ...singleOp('scaleKeys', {
      inputs: { q: [type, 'tokens', qSize], k: [type, 'tokens', kSize] },
      outputs: { qOut: [out, 'tokens', qSize], kOut: [out, 'tokens', kSize] },
      attrs: { headDim },
      constants: { keyScale: Float32Array.from({ length: kSize }, () => 0.1 + random.next()) },
    }),
    feeds: { q: values(random, count * qSize, type), k: values(random, count * kSize, type) },
    tolerances: { qOut: near(out, 2 ** -23), kOut: near(out, 2 ** -23) },
  }
}

/** add, tap and gatherRows: exact. */
function elementwise(random: Random): OpCase[] {
  const [count, columns] = [random.int(0, 9), random.int(1, 100)]
  const [type, out] = [random.pick(floats), random.pick(floats)]
  const x = rows(random, count, columns, type)
  const picked = Int32Array.from({ length: count === 0 ? 0 : random.int(0, 12) }, () => random.int(0, count - 1))
  return [
    {
      name: `add ${type} → ${out}`,
      ...singleOp('add', {
        inputs: { a: [type, 'tokens', columns], b: [type, 'tokens', columns] },
        outputs: { out: [out, 'tokens', columns] },
      }),
      feeds: { a: x, b: values(random, count * columns, type) },
      tolerances: { out: exact },
    },
    {
      name: `tap ${type}`,
      ...singleOp('tap', {
        inputs: { x: [type, 'tokens', columns] },
        outputs: { out: ['f32', 'tokens', columns] },
      }),
      feeds: { x },
      tolerances: { out: exact },
    },
    {
      name: `gatherRows ${type} → ${out}`,
      ...singleOp('gatherRows', {
        inputs: { x: [type, 'tokens', columns], rows: ['i32', 'outputs'] },
        outputs: { out: [out, 'outputs', columns] },
      }),
      feeds: { x, rows: picked },
      tolerances: { out: exact },
    },
  ]
}

function sample(random: Random, i: number): OpCase {
  const [count, vocabSize] = [random.int(0, 6), random.pick([1, 2, 17, 300, 3000])]
  const logits = values(random, count * vocabSize).map((v) => roundBf16(3 * v)) // rounded, so that there are ties
  const each = (value: () => number): Float32Array => Float32Array.from({ length: count }, value)
  return {
    name: `sample ${count} of ${vocabSize}`,
    ...singleOp('sample', {
      inputs: {
        logits: ['f32', 'outputs', vocabSize],
        temperature: ['f32', 'outputs'],
        topK: ['i32', 'outputs'],
        topP: ['f32', 'outputs'],
        uniform: ['f32', 'outputs'],
      },
      outputs: { token: ['i32', 'outputs'] },
    }),
    feeds: {
      logits,
      temperature: each(() => (i === 0 ? 0 : random.pick([0, 0.01, 0.7, 1, 5]))),
      topK: Int32Array.from({ length: count }, () => random.pick([0, 0, 1, 5, 40, 10000])),
      topP: each(() => random.pick([1, 0.9, 0.5, 0.01])),
      uniform: each(() => random.pick([0, random.next(), 1 - 2 ** -24])),
    },
    tolerances: { token: exact },
  }
}
