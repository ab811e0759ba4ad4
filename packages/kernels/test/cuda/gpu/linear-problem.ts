import {
  bf16BitsToF32,
  type DenseTensor,
  decodeBf16,
  decodeE4m3,
  encodeBf16,
  f32ToBf16Bits,
  f32ToE4m3Bits,
  type Int4Tensor,
  roundBf16,
  type Tensor,
  toFloat32,
} from '@fireq/formats'
import { type Accumulate, type Fp8Weight, ReferenceBackend } from '../../../src/index.js'
import { singleOp } from '../../conformance/op-case.js'
import type { Random } from '../../conformance/random.js'

export type ScaleKind = 'bf16' | 'e4m3' | 'f32' | 'wild' | 'huge group' | 'with zeros'
export type InputKind = 'normal' | 'limits' | 'subnormal' | 'zero rows'

export interface ProblemSpec {
  readonly m: number
  readonly n: number
  readonly k: number
  /** Default: `int4`. */
  readonly weight?: 'int4' | 'e4m3' | 'bf16'
  /** Of INT4. Default: 128. */
  readonly groupSize?: 32 | 64 | 128
  readonly lookup?: boolean
  /** A factor an output feature. Of INT4 by default none. */
  readonly channelScale?: boolean
  /** Of INT4 by default `e4m3`. */
  readonly activations?: 'e4m3' | 'bf16'
  readonly accumulate?: Accumulate
  readonly output?: 'bf16' | 'f32'
  readonly minus8?: boolean
  readonly scales?: ScaleKind
  readonly inputs?: InputKind
  readonly bias?: boolean
  readonly residual?: boolean
  readonly siluMul?: boolean
}

export interface Problem extends ProblemSpec {
  readonly tensor: Int4Tensor | Fp8Weight | DenseTensor
  /** E4M3 [M, K], or BF16. */
  readonly x: Uint8Array | Uint16Array
  /** With E4M3. */
  readonly xScale: Float32Array | undefined
  /** BF16. */
  readonly biasBits: Uint16Array | undefined
  readonly residualBits: Uint16Array | undefined
}

export function makeProblem(random: Random, spec: ProblemSpec): Problem {
  const { m, n, k, weight = 'int4', inputs = 'normal', bias = false, residual = false } = spec
  const normals = (count: number): Uint16Array =>
    encodeBf16(Float32Array.from({ length: count }, () => random.normal()))
  const x = makeInputs(random, m, k, inputs)
  const isBf16 = (spec.activations ?? (weight === 'bf16' ? 'bf16' : 'e4m3')) === 'bf16'
  return {
    ...spec,
    tensor: weight === 'int4' ? makeInt4(random, spec) : makeDense(random, n, k, weight),
    x: isBf16 ? encodeBf16(decodeE4m3(x).map((value) => value * 0.01)) : x,
    xScale: isBf16 ? undefined : Float32Array.from({ length: m }, () => 0.5 + random.next()),
    biasBits: bias ? normals(n) : undefined,
    residualBits: residual ? normals(m * n) : undefined,
  }
}

export function describeProblem(p: ProblemSpec): string {
  const { m, n, k, weight = 'int4', groupSize = 128, minus8 = true, scales = 'bf16', inputs = 'normal' } = p
  const int4 = [`INT4 g${groupSize}`, minus8 ? '−8…7' : '−7…7', `scales ${scales}`]
  const flags = (['lookup', 'channelScale', 'bias', 'residual', 'siluMul'] as const).filter((name) => p[name])
  const extras = [
    ...flags,
    ...(p.activations ? [`x in ${p.activations}`] : []),
    ...(p.accumulate ? [p.accumulate] : []),
    ...(p.output ? [`to ${p.output}`] : []),
  ]
  return [`M=${m} N=${n} K=${k}`, ...(weight === 'int4' ? int4 : [weight]), `x ${inputs}`, ...extras].join(', ')
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

function makeDense(random: Random, n: number, k: number, kind: 'e4m3' | 'bf16'): Fp8Weight | DenseTensor {
  const bytes = makeInputs(random, n, k, 'normal')
  if (kind === 'bf16') {
    return { kind: 'dense', dtype: 'bf16', shape: [n, k], data: encodeBf16(decodeE4m3(bytes).map((v) => v * 1e-3)) }
  }
  const channelScale = Float32Array.from({ length: n }, () => (random.next() - 0.5) * 0.01)
  return { kind: 'e4m3', shape: [n, k], codes: bytes, channelScale }
}

function makeInt4(random: Random, spec: ProblemSpec): Int4Tensor {
  const { n, k, groupSize = 128, minus8 = true, scales: kind = 'bf16', lookup = false, channelScale = false } = spec
  const codes = randomBytes(random, (n * k) / 2)
  if (!minus8) {
    for (let i = 0; i < codes.length; i++) {
      if ((codes[i]! & 0x0f) === 0) codes[i]! |= 1
      if ((codes[i]! & 0xf0) === 0) codes[i]! |= 0x10
    }
  }
  const groups = k / groupSize
  const huge = random.int(0, groups - 1)
  const scale = (g: number): number => {
    const usual = (0.5 + random.next()) * (lookup ? 1 : 0.01) // products of a table are E4M3 numbers
    const sign = random.next() < 0.3 ? -1 : 1
    switch (kind) {
      case 'wild':
        return sign * 2 ** (random.next() * 30 - 20) // look-ups: from nothing to beyond the largest number
      case 'huge group':
        return g === huge ? usual * 1e5 : usual
      case 'with zeros':
        return random.next() < 0.2 ? 0 : sign * usual
      default:
        return sign * usual
    }
  }
  const values = Float32Array.from({ length: n * groups }, (_, i) => scale(i % groups))
  const rowFactor = (): number => 2 ** -random.int(0, 6)
  const tensor = {
    kind: 'int4',
    shape: [n, k],
    groupSize,
    codes,
    ...(channelScale && { channelScale: Float32Array.from({ length: n }, rowFactor) }),
    ...(lookup && { lookupRounding: true }),
  } as const
  if (kind === 'f32') return { ...tensor, groupScale: { dtype: 'f32', data: values } }
  if (kind === 'e4m3') {
    const data = Uint8Array.from(values, (value) => f32ToE4m3Bits(lookup ? value : value * 1024))
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

/** What sums lose, in parts of a product's typical size √Σ(x · w)²: Hopper's FP8 accumulator keeps 13 bits behind the point. */
const lost = { fast: 2 ** -6, precise: 2 ** -9 } as const

/**
 * The reference backend's result at some tokens and features: all of them if that is quick, else the ends and random ones.
 * Tolerance: a rounding of the value to the output's type, and what sums may lose.
 */
export async function expectedOutputs(random: Random, p: Problem, accumulate: Accumulate): Promise<Expected[]> {
  const columns = p.siluMul ? p.n / 2 : p.n
  const all = p.m * p.n * p.k <= 1e7
  const rows = all ? range(p.m) : sample(random, p.m, 12)
  const features = all ? range(columns) : sample(random, columns, 40)
  const sources = p.siluMul ? [...features, ...features.map((f) => f + columns)] : features
  const part = pick(p, rows, sources)
  const product = await referenceLinear(part, rows.length, sources.length, p.k)
  const typical = typicalSizes(part, rows.length, sources.length, p.k)
  const width = sources.length
  const step = p.output === 'f32' ? 2 ** -20 : 2 ** -8
  return rows.flatMap((row, r) =>
    features.map((column, f): Expected => {
      const at = r * width + f
      const bias = (index: number): number => (p.biasBits ? bf16BitsToF32(p.biasBits[index]!) : 0)
      const sumsBits = accumulate === 'fast' ? 2 ** -7 : 2 ** -16 // fast: parts of K may meet as half floats
      const slack = (i: number): number => Math.abs(product[i]!) * sumsBits + typical[i]! * lost[accumulate]
      if (p.siluMul) {
        const up = at + features.length
        const [g, u] = [product[at]! + bias(column), product[up]! + bias(column + columns)]
        const value = (g / (1 + Math.exp(-g))) * u
        const tolerance = slack(at) * 1.1 * Math.abs(u) + slack(up) * Math.abs(g) + slack(at) * slack(up)
        return { row, column, value, tolerance: tolerance + Math.abs(value) * 2 ** -8 + 1e-30 }
      }
      const residual = p.residualBits ? bf16BitsToF32(p.residualBits[row * p.n + column]!) : 0
      const value = product[at]! + bias(column) + residual
      return { row, column, value, tolerance: slack(at) + Math.abs(value) * step }
    }),
  )
}

/** ‖actual − exact‖ / ‖exact rounded to BF16 − exact‖, and ‖actual − exact‖ / ‖exact‖. */
export function errorsOf(
  actual: ArrayLike<number>,
  expected: readonly Expected[],
): { rounding: number; relative: number } {
  let [errors, roundings, values] = [0, 0, 0]
  expected.forEach(({ value }, i) => {
    errors += (actual[i]! - value) ** 2
    roundings += (roundBf16(value) - value) ** 2
    values += value ** 2
  })
  const ratio = (of: number): number => (errors === 0 ? 0 : Math.sqrt(errors / of))
  return { rounding: ratio(roundings), relative: ratio(values) }
}

interface Part {
  readonly x: Float32Array
  readonly xScale: Float32Array | undefined
  readonly tensor: Tensor
}

function pick(p: Problem, rows: readonly number[], features: readonly number[]): Part {
  const { k, xScale } = p
  const values = rowsOf(p.x, k, rows)
  return {
    x: values instanceof Uint16Array ? decodeBf16(values) : decodeE4m3(values),
    xScale: xScale && Float32Array.from(rows, (row) => xScale[row]!),
    tensor: pickTensor(p.tensor, features),
  }
}

/** Some features of a weight, as the reference backend takes them. */
function pickTensor(tensor: Problem['tensor'], features: readonly number[]): Tensor {
  const k = tensor.shape[1]!
  const shape = [features.length, k] as const
  if (tensor.kind === 'dense') return { ...tensor, shape, data: rowsOf(tensor.data, k, features) } as DenseTensor
  const factors = tensor.channelScale && Float32Array.from(features, (feature) => tensor.channelScale![feature]!)
  if (tensor.kind === 'e4m3') {
    const data = decodeE4m3(rowsOf(tensor.codes, k, features)).map((v, i) => v * factors![Math.floor(i / k)]!)
    return { kind: 'dense', dtype: 'f32', shape, data }
  }
  const { dtype, data } = tensor.groupScale
  return {
    ...tensor,
    shape,
    codes: rowsOf(tensor.codes, k / 2, features),
    groupScale: { dtype, data: rowsOf(data, k / tensor.groupSize, features) } as Int4Tensor['groupScale'],
    ...(factors && { channelScale: factors }),
  }
}

function rowsOf<T extends Uint8Array | Uint16Array | Float32Array>(
  matrix: T,
  width: number,
  rows: readonly number[],
): T {
  const result = matrix.slice(0, rows.length * width) as T
  rows.forEach((row, i) => {
    result.set(matrix.subarray(row * width, (row + 1) * width), i * width)
  })
  return result
}

async function referenceLinear({ x, xScale, tensor }: Part, m: number, n: number, k: number): Promise<Float32Array> {
  if (m === 0) return new Float32Array(0)
  const { program, tensors } = singleOp('linear', {
    inputs: xScale ? { x: ['e4m3', 'tokens', k], xScale: ['f32', 'tokens', 1] } : { x: ['bf16', 'tokens', k] },
    outputs: { out: ['f32', 'tokens', n] },
    weights: { weight: tensor },
  })
  using backend = new ReferenceBackend()
  using weights = await backend.loadWeights(program.weights, async (name) => tensors[name]!)
  using layer = await backend.compile(program, weights)
  const { out } = await layer.run({ x, ...(xScale && { xScale }) })
  return out as Float32Array
}

/** √Σₖ(x · w)² of every output. */
function typicalSizes({ x, xScale, tensor }: Part, m: number, n: number, k: number): Float64Array {
  const result = new Float64Array(m * n)
  const squaresOfW = Float64Array.from(toFloat32(tensor), (value) => value ** 2)
  const squaresOfX = Float64Array.from(x, (value) => value ** 2)
  for (let f = 0; f < n; f++) {
    for (let t = 0; t < m; t++) {
      let sum = 0
      for (let i = 0; i < k; i++) sum += squaresOfW[f * k + i]! * squaresOfX[t * k + i]!
      result[t * n + f] = Math.sqrt(sum) * (xScale?.[t] ?? 1)
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
