import { type Tensor, toFloat32 } from '@fireq/formats'
import { BF16_STEP, type Tolerance } from './compare.js'
import { type OpCase, singleOp } from './op-case.js'
import { dense, type Fill, fills, int4, type Random, values } from './random.js'

const weightKinds = ['f32', 'bf16', 'f16', 'int4 bf16', 'int4 e4m3', 'int4 f32', 'lookup bf16', 'lookup e4m3'] as const

/**
 * Linears of every weight format, number of tokens up to and past what a kernel does at once, odd sizes, and every
 * epilogue. Tolerance: 32 · 2⁻²⁴ · Σ|x|·bound with bound 16σ for INT4 (sums of codes 0…15 less the offset) and |w|
 * otherwise, scaled like the output; plus a step of the output's type.
 */
export function linearCases(random: Random): OpCase[] {
  const cases: OpCase[] = []
  for (const kind of weightKinds) {
    for (const tokens of [1, 2, 3, 4, 5, random.int(6, 30), 150]) {
      cases.push(linearCase(random, kind, tokens, random.pick(fills)))
    }
  }
  cases.push(linearCase(random, 'int4 bf16', 0, 'normal'))
  return cases
}

function linearCase(random: Random, kind: (typeof weightKinds)[number], tokens: number, fill: Fill): OpCase {
  const rows = random.pick([1, 15, 16, 17, 33, 64, 100])
  const int4Kind = !kind.startsWith('f') && !kind.startsWith('b')
  const groupSize = int4Kind ? random.pick([8, 20, 32, 64, 128, 200]) : 1
  const columns = int4Kind ? groupSize * random.int(1, Math.ceil(500 / groupSize)) : random.int(1, 400)
  const weight = makeWeight(random, kind, [rows, columns], groupSize)
  const dtype = random.pick(['f32', 'bf16', 'e4m3'] as const)
  const out = random.pick(['f32', 'bf16'] as const)
  const [hasBias, hasResidual] = [random.next() < 0.3, random.next() < 0.3]
  const x = values(random, tokens * columns, dtype, fill)
  if (x.length > 0 && random.next() < 0.2) x[random.int(0, x.length - 1)] = Number.NaN // that token's results, no others
  const xScale = dtype === 'e4m3' && values(random, tokens).map((v) => Math.abs(v) / 100)
  const residual = hasResidual && values(random, tokens * rows, out)
  const bias = hasBias && dense(random, [rows], random.pick(['f32', 'bf16', 'f16'] as const))
  const { program, tensors } = singleOp('linear', {
    inputs: {
      x: [dtype, 'tokens', columns],
      ...(xScale && { xScale: ['f32', 'tokens', 1] as const }),
      ...(residual && { residual: [out, 'tokens', rows] as const }),
    },
    outputs: { out: [out, 'tokens', rows] },
    weights: { weight, ...(bias && { bias }) },
  })
  const magnitude = magnitudes(weight)
  const tolerance: Tolerance = (expected, index) => {
    const [t, n] = [Math.floor(index / rows), index % rows]
    let sum = 0
    for (let k = 0; k < columns; k++) sum += Math.abs(x[t * columns + k]!) * magnitude[n * columns + k]!
    const channel = weight.kind === 'int4' ? (weight.channelScale?.[n] ?? 1) : 1
    const step = out === 'bf16' ? BF16_STEP : 2 ** -22
    const added = Math.abs(residual ? residual[index]! : 0) + (hasBias ? 4 : 0)
    const products = 32 * 2 ** -24 * sum * (xScale ? xScale[t]! : 1) * channel
    return products + added * 2 ** -22 + Math.abs(expected) * step + 2 ** -120
  }
  return {
    name: `linear ${kind} [${rows}, ${columns}] g${groupSize}, ${tokens} ${fill} ${dtype} → ${out}`,
    program,
    tensors,
    feeds: { x, ...(xScale && { xScale }), ...(residual && { residual }) },
    tolerances: { out: tolerance },
  }
}

function makeWeight(random: Random, kind: string, shape: readonly [number, number], groupSize: number): Tensor {
  const [family, scale] = kind.split(' ') as [string, 'bf16' | 'e4m3' | 'f32']
  if (family === 'int4' || family === 'lookup') {
    const lookupRounding = family === 'lookup'
    return int4(random, shape, groupSize, { scale, lookupRounding, channelScale: random.next() < 0.5 })
  }
  return dense(random, shape, family as 'f32' | 'bf16' | 'f16')
}

/** What bounds an element's part in rounding errors, without the channel scale. */
function magnitudes(weight: Tensor): Float32Array {
  if (weight.kind === 'dense') return toFloat32(weight).map(Math.abs)
  const { channelScale: _, lookupRounding, ...plain } = weight
  const scales = toFloat32({ ...plain, codes: new Uint8Array(weight.codes.length).fill(0x99) }) // code 1: the value is σ
  return scales.map((v) => 16 * Math.abs(v) + (lookupRounding ? 2 ** -9 : 0))
}
