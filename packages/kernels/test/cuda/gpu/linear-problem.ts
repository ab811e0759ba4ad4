import { bf16BitsToF32, decodeE4m3, encodeBf16, f32ToBf16Bits, f32ToE4m3Bits, type Int4Tensor } from '@fireq/formats'
import { ReferenceBackend } from '../../../src/index.js'
import { singleOp } from '../../conformance/op-case.js'
import type { Random } from '../../conformance/random.js'

export type ScaleKind = 'bf16' | 'e4m3' | 'f32' | 'wild' | 'huge group' | 'with zeros'
export type InputKind = 'normal' | 'limits' | 'subnormal' | 'zero rows'

export interface ProblemSpec {
  readonly m: number
  readonly n: number
  readonly k: number
  readonly minus8?: boolean
  readonly scales?: ScaleKind
  readonly inputs?: InputKind
  readonly bias?: boolean
  readonly residual?: boolean
  readonly siluMul?: boolean
}

export interface Problem extends ProblemSpec {
  readonly tensor: Int4Tensor
  /** E4M3 [M, K]. */
  readonly x: Uint8Array
  readonly xScale: Float32Array
  /** BF16. */
  readonly biasBits: Uint16Array | undefined
  readonly residualBits: Uint16Array | undefined
}

export function makeProblem(random: Random, spec: ProblemSpec): Problem {
  const { m, n, k, minus8 = true, bias = false, residual = false } = spec
  const normals = (count: number): Uint16Array =>
    encodeBf16(Float32Array.from({ length: count }, () => random.normal()))
  return {
    ...spec,
    tensor: makeTensor(random, n, k, minus8, spec.scales ?? 'bf16'),
    x: makeInputs(random, m, k, spec.inputs ?? 'normal'),
    xScale: Float32Array.from({ length: m }, () => 0.5 + random.next()),
    biasBits: bias ? normals(n) : undefined,
    residualBits: residual ? normals(m * n) : undefined,
  }
}

export function describeProblem(p: ProblemSpec): string {
  const { m, n, k, minus8 = true, scales = 'bf16', inputs = 'normal' } = p
  const extras = (['bias', 'residual', 'siluMul'] as const).filter((name) => p[name])
  return [`M=${m} N=${n} K=${k}`, minus8 ? '−8…7' : '−7…7', `scales ${scales}`, `x ${inputs}`, ...extras].join(', ')
}

/** Bytes from a seed, quickly: weights are large. */
function randomBytes(random: Random, count: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(count / 4))
  let state = random.int(1, 2 ** 31)
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    words[i] = state
  }
  return new Uint8Array(words.buffer, 0, count)
}

function makeTensor(random: Random, n: number, k: number, minus8: boolean, kind: ScaleKind): Int4Tensor {
  const codes = randomBytes(random, (n * k) / 2)
  if (!minus8) {
    for (let i = 0; i < codes.length; i++) {
      if ((codes[i]! & 0x0f) === 0) codes[i]! |= 1
      if ((codes[i]! & 0xf0) === 0) codes[i]! |= 0x10
    }
  }
  const groups = k / 128
  const huge = random.int(0, groups - 1)
  const scale = (g: number): number => {
    const usual = (0.5 + random.next()) * 0.01
    const sign = random.next() < 0.3 ? -1 : 1
    switch (kind) {
      case 'wild':
        return sign * 2 ** (random.next() * 30 - 20)
      case 'huge group':
        return g === huge ? usual * 1e5 : usual
      case 'with zeros':
        return random.next() < 0.2 ? 0 : sign * usual
      default:
        return sign * usual
    }
  }
  const values = Float32Array.from({ length: n * groups }, (_, i) => scale(i % groups))
  const tensor = { kind: 'int4', shape: [n, k], groupSize: 128, codes } as const
  if (kind === 'f32') return { ...tensor, groupScale: { dtype: 'f32', data: values } }
  if (kind === 'e4m3') {
    const data = Uint8Array.from(values, (value) => f32ToE4m3Bits(value * 1024))
    return { ...tensor, groupScale: { dtype: 'e4m3', data }, channelScale: new Float32Array(n).fill(2 ** -10) }
  }
  return { ...tensor, groupScale: { dtype: 'bf16', data: Uint16Array.from(values, f32ToBf16Bits) } }
}

function makeInputs(random: Random, m: number, k: number, kind: InputKind): Uint8Array {
  const table = Uint8Array.from({ length: 4096 }, () => f32ToE4m3Bits(random.normal() * 100))
  const bytes = randomBytes(random, 2 * m * k)
  return Uint8Array.from({ length: m * k }, (_, i) => {
    const row = Math.floor(i / k)
    const pick = bytes[2 * i]! | ((bytes[2 * i + 1]! & 15) << 8)
    if (kind === 'zero rows' && row % 2 === 0) return row % 4 === 0 ? 0 : 0x80
    if (kind === 'limits') return (pick & 1) === 0 ? 0x7e : 0xfe // ±448
    if (kind === 'subnormal') return (pick & 0x80) | ((pick >>> 1) & 7)
    return table[pick]!
  })
}

/** What an output may be. */
export interface Expected {
  readonly row: number
  readonly column: number
  readonly value: number
  readonly tolerance: number
}

/**
 * The reference backend's result at some tokens and features: all of them if that is quick, else the ends and random ones.
 * Tolerance: a BF16 rounding of the value, 2⁻⁷ of the product itself and 2⁻⁶ of √Σ(x · w)², its typical size: Hopper's FP8
 * accumulator keeps 13 bits behind the point.
 */
export async function expectedOutputs(random: Random, p: Problem): Promise<Expected[]> {
  const columns = p.siluMul ? p.n / 2 : p.n
  const all = p.m * p.n * p.k <= 2e7
  const rows = all ? range(p.m) : sample(random, p.m, 12)
  const features = all ? range(columns) : sample(random, columns, 40)
  const sources = p.siluMul ? [...features, ...features.map((f) => f + columns)] : features
  const part = pick(p, rows, sources)
  const product = await referenceLinear(part, rows.length, sources.length, p.k)
  const typical = typicalSizes(part, rows.length, sources.length, p.k)
  const width = sources.length
  return rows.flatMap((row, r) =>
    features.map((column, f): Expected => {
      const at = r * width + f
      const bias = (index: number): number => (p.biasBits ? bf16BitsToF32(p.biasBits[index]!) : 0)
      const slack = (i: number): number => Math.abs(product[i]!) * 2 ** -7 + typical[i]! * 2 ** -6
      if (p.siluMul) {
        const up = at + features.length
        const [g, u] = [product[at]! + bias(column), product[up]! + bias(column + columns)]
        const value = (g / (1 + Math.exp(-g))) * u
        const tolerance = slack(at) * 1.1 * Math.abs(u) + slack(up) * Math.abs(g) + slack(at) * slack(up)
        return { row, column, value, tolerance: tolerance + Math.abs(value) * 2 ** -8 + 1e-30 }
      }
      const residual = p.residualBits ? bf16BitsToF32(p.residualBits[row * p.n + column]!) : 0
      const value = product[at]! + bias(column) + residual
      return { row, column, value, tolerance: slack(at) + Math.abs(value) * 2 ** -8 }
    }),
  )
}

interface Part {
  readonly x: Float32Array
  readonly xScale: Float32Array
  readonly tensor: Int4Tensor
}

function pick(p: Problem, rows: readonly number[], features: readonly number[]): Part {
  const { tensor, k } = p
  const x = new Uint8Array(rows.length * k)
  rows.forEach((row, i) => {
    x.set(p.x.subarray(row * k, (row + 1) * k), i * k)
  })
  const codes = new Uint8Array((features.length * k) / 2)
  const scales = tensor.groupScale.data.slice(0, (features.length * k) / 128)
  features.forEach((feature, i) => {
    codes.set(tensor.codes.subarray((feature * k) / 2, ((feature + 1) * k) / 2), (i * k) / 2)
    scales.set(tensor.groupScale.data.subarray((feature * k) / 128, ((feature + 1) * k) / 128), (i * k) / 128)
  })
  return {
    x: decodeE4m3(x),
    xScale: Float32Array.from(rows, (row) => p.xScale[row]!),
    tensor: {
      ...tensor,
      shape: [features.length, k],
      codes,
      groupScale: { dtype: tensor.groupScale.dtype, data: scales } as Int4Tensor['groupScale'],
      ...(tensor.channelScale && {
        channelScale: Float32Array.from(features, (feature) => tensor.channelScale![feature]!),
      }),
    },
  }
}

async function referenceLinear({ x, xScale, tensor }: Part, m: number, n: number, k: number): Promise<Float32Array> {
  if (m === 0) return new Float32Array(0)
  const { program, tensors } = singleOp('linear', {
    inputs: { x: ['e4m3', 'tokens', k], xScale: ['f32', 'tokens', 1] },
    outputs: { out: ['f32', 'tokens', n] },
    weights: { weight: tensor },
  })
  using backend = new ReferenceBackend()
  using weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  using layer = await backend.compile(program, weights)
  const { out } = await layer.run({ x, xScale })
  return out as Float32Array
}

/** √Σₖ(x · w)² of every output. */
function typicalSizes({ x, xScale, tensor }: Part, m: number, n: number, k: number): Float64Array {
  const result = new Float64Array(m * n)
  const squares = new Float64Array(k)
  const { codes, groupScale, channelScale } = tensor
  const scaleAt = (g: number): number => {
    const bits = groupScale.data[g]!
    return groupScale.dtype === 'f32'
      ? bits
      : groupScale.dtype === 'bf16'
        ? bf16BitsToF32(bits)
        : decodeE4m3(Uint8Array.of(bits))[0]!
  }
  for (let f = 0; f < n; f++) {
    for (let i = 0; i < k; i++) {
      const at = f * k + i
      const code = ((codes[at >> 1]! >> (at & 1 ? 4 : 0)) & 15) - 8
      squares[i] = (code * scaleAt(at >> 7) * (channelScale?.[f] ?? 1)) ** 2
    }
    for (let t = 0; t < m; t++) {
      let sum = 0
      for (let i = 0; i < k; i++) sum += squares[i]! * x[t * k + i]! ** 2
      result[t * n + f] = Math.sqrt(sum) * xScale[t]!
    }
  }
  return result
}

function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i)
}

/** The first and last few of `count`, and random ones between, in order. */
function sample(random: Random, count: number, wanted: number): number[] {
  if (count <= wanted) return range(count)
  const picked = new Set([0, 1, count - 2, count - 1])
  while (picked.size < wanted) picked.add(random.int(0, count - 1))
  return [...picked].sort((a, b) => a - b)
}
